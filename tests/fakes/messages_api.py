"""A local server of the Anthropic Messages API, for tests and for demos without a key.

Tests start `MessagesApi` in a thread; `python -m tests.fakes.messages_api --port 0` serves in the
foreground. It says what turns of `messages_scripts` say, in the grammar of the real service (the
types of the anthropic SDK 2.12; the API's pages on streaming and on errors).
"""

import argparse
import asyncio
import json
import re
import socket
import threading
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Send

from tests.fakes import messages_scripts as scripts

MODEL = re.compile(r"claude-(fable|mythos|opus|sonnet|haiku)-[0-9p][a-z0-9-]*")  # current families
ROLES = ("user", "assistant", "system")
VERSIONS = ("2026-10-21", "2023-06-01", "2023-01-01")
SAMPLING = ("temperature", "top_p", "top_k")  # no longer taken since 2026-10-21
PIECE_CHARS = 24  # small, so that words and JSON escapes are torn apart on their way
SIGNATURE = "RmFrZSBzaWduYXR1cmU="  # opaque to clients; they only send it back
DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}
Json = dict[str, Any]


class ApiError(Exception):
    """A request that is turned down."""

    def __init__(
        self, status: int, kind: str, message: str, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.retry_after = status, kind, retry_after


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One POST as it came in, even when it was turned down."""

    path: str
    headers: Mapping[str, str]  # names in lower case
    body: Any  # decoded; None when it was not JSON


class MessagesApi:
    """The server, on a free port of 127.0.0.1: `with MessagesApi() as api: ... api.url`."""

    def __init__(self, *, key: str | None = None, port: int = 0, drip_s: float = 0.0) -> None:
        """Listen. Only `key` is accepted, or any key; `drip_s` paces the default script."""
        self._key = key
        self._drip_s = drip_s
        self._changed = threading.Condition()
        self._turns: deque[scripts.Turn] = deque()
        self._always: scripts.Turn | None = None
        self._requests: list[Recorded] = []
        self._socket = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        routes = [
            Route("/v1/messages", self._messages, methods=["POST"]),
            Route("/v1/messages/count_tokens", self._count_tokens, methods=["POST"]),
        ]
        app = Starlette(
            routes=routes, exception_handlers={ApiError: _refuse, HTTPException: _refuse}
        )
        # No logging set-up: in a test's process the log belongs to the test.
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.serve, name="messages-api", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)
        if self._thread.is_alive():
            raise TimeoutError("the fake Messages API did not stop within 10 s")

    def serve(self) -> None:
        """Serve in this thread until told to stop."""
        with self._socket:
            self._server.run(sockets=[self._socket])

    def play(self, *turns: scripts.Turn) -> None:
        """Answer the next accepted messages with these turns, one each, in order."""
        with self._changed:
            self._turns.extend(turns)

    def always(self, turn: scripts.Turn | None) -> None:
        """Answer with this turn when nothing is left to play; None: with the default script."""
        with self._changed:
            self._always = turn

    def reset(self) -> None:
        """Forget turns and requests: a server can be shared by tests."""
        with self._changed:
            self._turns.clear()
            self._always = None
            self._requests.clear()

    @property
    def requests(self) -> tuple[Recorded, ...]:
        """Every POST so far, oldest first."""
        with self._changed:
            return tuple(self._requests)

    def wait_for_requests(self, count: int, *, within_s: float = 10.0) -> tuple[Recorded, ...]:
        """Wait until `count` requests have come in; TimeoutError otherwise."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= count, within_s):
                raise TimeoutError(f"{len(self._requests)} of {count} requests within {within_s} s")
            return tuple(self._requests)

    async def _messages(self, request: Request) -> Response:
        body = await self._accept(request, ("model", "max_tokens", "messages"))
        turn, delay_s, cut_after = self._next_turn(body), 0.0, None
        while isinstance(turn, scripts.Cut | scripts.Drip):
            if isinstance(turn, scripts.Cut):
                cut_after = turn.after_events
            else:
                delay_s = turn.delay_s
            turn = turn.turn
        streamed, error = body.get("stream") is True, None
        if isinstance(turn, scripts.ErrorTurn):
            if not streamed or turn.after_events is None:
                raise ApiError(turn.status, turn.type, turn.message, turn.retry_after)
            error, turn = turn, scripts.TextTurn(text="Something is about to go wrong. " * 20)
        reply = scripts.reply_of(turn, max_tokens=body["max_tokens"])
        request_id = _new_id("req")
        if not streamed:
            payload = _json(_message(body, reply))
            kept = len(payload) if cut_after is None else len(payload) // 2
            headers = _headers(request_id, "application/json") | {
                "content-length": str(len(payload))
            }
            return _Wire([payload[:kept]], headers, delay_s=delay_s, whole=cut_after is None)
        frames = [_frame(event) for event in _events(body, reply)][:cut_after]
        if error is not None:
            frames[error.after_events :] = [_frame(_error(error.type, error.message, request_id))]
        headers = _headers(request_id, "text/event-stream; charset=utf-8")
        return _Wire(frames, headers, delay_s=delay_s, whole=cut_after is None)

    async def _count_tokens(self, request: Request) -> Response:
        body = await self._accept(request, ("model", "messages"))
        headers = _headers(_new_id("req"), "application/json")
        return JSONResponse({"input_tokens": _input_tokens(body)}, headers=headers)

    async def _accept(self, request: Request, required: tuple[str, ...]) -> Json:
        raw = await request.body()
        try:
            body = json.loads(raw)
            _json(body)  # a lone surrogate is no text
        except (ValueError, RecursionError):
            body = None
        with self._changed:
            headers = dict(request.headers)
            self._requests.append(Recorded(path=request.url.path, headers=headers, body=body))
            self._changed.notify_all()
        _check_headers(headers, self._key)
        return _checked(body, required, headers["anthropic-version"])

    def _next_turn(self, body: Json) -> scripts.Turn:
        with self._changed:
            if self._turns:
                return self._turns.popleft()
            if self._always is not None:
                return self._always
        return scripts.Drip(delay_s=self._drip_s, turn=scripts.default_turn(body))


class _Wire(StreamingResponse):
    """Chunks with a pause before each; if not `whole`, the connection is dropped after them."""

    def __init__(self, chunks: list[bytes], headers: Json, *, delay_s: float, whole: bool) -> None:
        super().__init__(self._paced(chunks, delay_s), headers=headers)
        self._whole = whole

    async def _paced(self, chunks: list[bytes], delay_s: float) -> AsyncIterator[bytes]:
        for chunk in chunks:
            await asyncio.sleep(delay_s)
            yield chunk

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for chunk in self.body_iterator:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if self._whole:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _check_headers(headers: Mapping[str, str], key: str | None) -> None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    # The SDK sends the key as a bearer token since its 2.0; before, and elsewhere, as x-api-key.
    given = headers.get("x-api-key") or (token if scheme.lower() == "bearer" else "")
    if not given:
        raise ApiError(401, "authentication_error", "x-api-key header is required")
    if key is not None and given != key:
        raise ApiError(401, "authentication_error", "invalid x-api-key")
    version = headers.get("anthropic-version")
    if version not in VERSIONS:
        fault = f'"{version}" is not a valid version' if version else "header is required"
        raise ApiError(400, "invalid_request_error", f"anthropic-version: {fault}")


def _checked(body: object, required: tuple[str, ...], version: str) -> Json:
    fault = _fault(body, required)
    if fault or not isinstance(body, dict):
        raise ApiError(400, "invalid_request_error", fault)
    for field in SAMPLING:
        if field in body and version == VERSIONS[0]:
            raise ApiError(400, "invalid_request_error", f"{field}: Extra inputs are not permitted")
    if not MODEL.fullmatch(body["model"]):
        raise ApiError(404, "not_found_error", f"model: {body['model']}")
    return body


def _fault(body: object, required: tuple[str, ...]) -> str:
    """Say what is wrong with a request's body, or nothing."""
    if not isinstance(body, dict):
        return "The request body is not valid JSON"
    for field in required:
        if field not in body:
            return f"{field}: Field required"
    if not isinstance(body["model"], str) or not body["model"]:
        return "model: Input should be a valid string"
    limit = body.get("max_tokens", 1)
    if type(limit) is not int or limit < 1:
        return "max_tokens: Input should be an integer greater than or equal to 1"
    messages = body["messages"]
    if not isinstance(messages, list) or not messages:
        return "messages: at least one message is required"
    for at, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return f"messages.{at}.role: Input should be one of {', '.join(ROLES)}"
        content = message.get("content")
        blocks = content if isinstance(content, list) else []
        if not content or not (isinstance(content, str) or all(map(_is_block, blocks))):
            return f"messages.{at}.content: Input should be text or a list of content blocks"
    tools = body.get("tools", [])
    if not isinstance(tools, list) or not all(isinstance(t, dict) and "name" in t for t in tools):
        return "tools: Input should be a list of tools with a name"
    for at, tool in enumerate(tools):
        if tool.get("type", "custom") == "custom" and not isinstance(
            tool.get("input_schema"), dict
        ):
            return f"tools.{at}.custom.input_schema: Field required"
    return ""


def _is_block(block: object) -> bool:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        return False
    return block["type"] != "text" or isinstance(block.get("text"), str)


def _refuse(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):  # no such path, or another method
        kind = "not_found_error" if error.status_code == 404 else "invalid_request_error"
        error = ApiError(error.status_code, kind, error.detail)
    assert isinstance(error, ApiError)
    request_id = _new_id("req")
    headers = _headers(request_id, "application/json")
    if error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:g}"
    body = _error(error.kind, str(error), request_id)
    return Response(_json(body), status_code=error.status, headers=headers)


def _message(body: Json, reply: scripts.Reply) -> Json:
    """Return a whole message, as an answer that isn't streamed."""
    content = []
    for block in reply.blocks:
        whole = _empty(block)
        if block.kind == "tool_use":
            try:
                whole["input"] = json.loads(block.payload)
            except ValueError:  # broken off or malformed: there is no object to show
                whole["input"] = {}
        else:
            whole[block.kind] = block.payload
        if block.kind == "thinking":
            whole["signature"] = SIGNATURE
        content.append(whole)
    chars = sum(len(block.payload) for block in reply.blocks)
    return {
        "id": _new_id("msg"),
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": reply.stop_reason,
        "stop_sequence": None,
        "stop_details": reply.stop_details,
        "usage": {
            "input_tokens": _input_tokens(body),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": chars // scripts.CHARS_PER_TOKEN + 1,
            "service_tier": "standard",
        },
    }


def _events(body: Json, reply: scripts.Reply) -> Iterator[Json]:
    """Yield the same message as the events of a stream."""
    whole = _message(body, reply)
    end = {key: whole[key] for key in ("stop_reason", "stop_sequence", "stop_details")}
    start = whole | dict.fromkeys(end) | {"content": []}
    yield {
        "type": "message_start",
        "message": start | {"usage": whole["usage"] | {"output_tokens": 1}},
    }
    for index, block in enumerate(reply.blocks):
        yield {"type": "content_block_start", "index": index, "content_block": _empty(block)}
        if index == 0:
            yield {"type": "ping"}
        for delta in _deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    usage = {key: count for key, count in whole["usage"].items() if key.endswith("_tokens")}
    yield {"type": "message_delta", "delta": end, "usage": usage}
    yield {"type": "message_stop"}


def _deltas(block: scripts.Block) -> Iterator[Json]:
    kind, field = DELTAS[block.kind]
    if block.kind == "tool_use":
        yield {"type": kind, field: ""}  # the service opens each input so
    for at in range(0, len(block.payload), PIECE_CHARS):
        yield {"type": kind, field: block.payload[at : at + PIECE_CHARS]}
    if block.kind == "thinking":
        yield {"type": "signature_delta", "signature": SIGNATURE}


def _empty(block: scripts.Block) -> Json:
    if block.kind == "tool_use":
        caller = {"type": "direct"}
        return {
            "type": "tool_use",
            "id": _new_id("toolu"),
            "name": block.tool,
            "input": {},
            "caller": caller,
        }
    return {"type": block.kind, block.kind: ""} | (
        {"signature": ""} if block.kind == "thinking" else {}
    )


def _input_tokens(body: Json) -> int:
    told = [body.get(part) for part in ("system", "messages", "tools")]
    return len(_json(told)) // scripts.CHARS_PER_TOKEN + 1


def _error(kind: str, message: str, request_id: str) -> Json:
    error = {"type": kind, "message": message}
    return {"type": "error", "error": error, "request_id": request_id}


def _frame(event: Json) -> bytes:
    return f"event: {event['type']}\ndata: ".encode() + _json(event) + b"\n\n"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _headers(request_id: str, content_type: str) -> dict[str, str]:
    return {"request-id": request_id, "content-type": content_type, "cache-control": "no-cache"}


def _new_id(prefix: str) -> str:
    return f"{prefix}_01{uuid.uuid4().hex[:22]}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a fake Messages API on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--key", help="the only x-api-key to accept; any if not given")
    parser.add_argument("--drip-s", type=float, default=0.0, help="seconds between events, up to 1")
    given = parser.parse_args()
    api = MessagesApi(key=given.key, port=given.port, drip_s=given.drip_s)
    print(f"listening on {api.url}", flush=True)
    api.serve()


if __name__ == "__main__":
    main()
