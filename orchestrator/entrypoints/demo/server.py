"""The server: validates requests as the Messages API does and answers from `answers.py`.

`main` serves in the foreground. Tests use MessagesServer as a context manager: then it serves in a
thread.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Send

from orchestrator.entrypoints.demo import answers, usage, wire
from orchestrator.entrypoints.demo.requests import ApiError, check_headers, validate_body
from orchestrator.entrypoints.demo.wire import Json, Reply

STOP_WITHIN_S = 10


class MessagesServer:
    """A server on a port of 127.0.0.1; 0 picks a free one. `url` is its address."""

    def __init__(self, *, key: str | None = None, port: int = 0, drip_s: float = 0.0) -> None:
        """Open the port. With a `key` of None any key is accepted. `drip_s` is the pause before
        each event of a stream, in seconds."""
        self.drip_s = drip_s
        self._key = key
        self._cache = usage.PromptCache()
        self._socket = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        routes = [
            Route("/v1/messages", self._messages, methods=["POST"]),
            Route("/v1/messages/count_tokens", self._count_tokens, methods=["POST"]),
        ]
        app = Starlette(
            routes=routes, exception_handlers={ApiError: _refuse, HTTPException: _refuse}
        )
        # Don't configure logging: in a test the process's log belongs to the test.
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.serve, name="messages-api", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=STOP_WITHIN_S)
        if self._thread.is_alive():
            raise TimeoutError(f"the Messages API did not stop within {STOP_WITHIN_S} s")

    def serve(self) -> None:
        """Serve in this thread until a signal or `__exit__` stops it."""
        with self._socket:
            self._server.run(sockets=[self._socket])

    def received(self, path: str, headers: Mapping[str, str], body: Any) -> None:
        """A hook for tests, called for each request before its validation. `body` is None if it is
        not JSON."""

    def answer(self, body: Json) -> Response:
        """Answer an accepted request."""
        reply = cut_to(answers.reply(body), body["max_tokens"])
        return self.deliver(body, reply, drip_s=self.drip_s)

    def spend(self, body: Json, reply: Reply) -> Json:
        """The `usage` object of an answer. It also updates the prompt cache."""
        return self._cache.usage(body, reply)

    def deliver(self, body: Json, reply: Reply, *, drip_s: float = 0.0) -> Response:
        """The response with this reply, streamed or whole, as the request asks."""
        request_id, token_usage = wire.new_id("req"), self.spend(body, reply)
        if body.get("stream") is not True:
            headers = wire.headers(request_id, "application/json")
            return JSONResponse(wire.message(body, reply, token_usage), headers=headers)
        frames = [wire.frame(event) for event in wire.events(body, reply, token_usage)]
        headers = wire.headers(request_id, "text/event-stream; charset=utf-8")
        return Paced(frames, headers, delay_s=drip_s)

    async def _messages(self, request: Request) -> Response:
        body = await self._accept(request, ("model", "max_tokens", "messages"))
        return self.answer(body)

    async def _count_tokens(self, request: Request) -> Response:
        body = await self._accept(request, ("model", "messages"))
        headers = wire.headers(wire.new_id("req"), "application/json")
        return JSONResponse({"input_tokens": usage.input_tokens(body)}, headers=headers)

    async def _accept(self, request: Request, required: tuple[str, ...]) -> Json:
        raw = await request.body()
        try:
            body = json.loads(raw)
            wire.to_json(body)  # fails for half of a surrogate pair, which is no text
        except (ValueError, RecursionError):
            body = None
        headers = dict(request.headers)
        self.received(request.url.path, headers, body)
        check_headers(headers, self._key)
        return validate_body(body, required, headers["anthropic-version"])


class Paced(StreamingResponse):
    """A response with a pause before each chunk. If not `whole`, it ends without its end marker."""

    def __init__(
        self, chunks: list[bytes], headers: Json, *, delay_s: float = 0.0, whole: bool = True
    ) -> None:
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


def cut_to(reply: Reply, max_tokens: float) -> Reply:
    """The reply, cut off when it reaches `max_tokens`."""
    budget = int(max_tokens * wire.CHARS_PER_TOKEN)
    if sum(len(block.payload) for block in reply.blocks) <= budget:
        return reply
    kept = []
    for block in reply.blocks:
        if budget > 0:
            kept.append(replace(block, payload=block.payload[:budget]))
        budget -= len(block.payload)
    return Reply(blocks=kept, stop_reason="max_tokens")


def _refuse(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):  # unknown path or wrong method
        kind = "not_found_error" if error.status_code == 404 else "invalid_request_error"
        error = ApiError(error.status_code, kind, error.detail)
    assert isinstance(error, ApiError)
    request_id = wire.new_id("req")
    headers = wire.headers(request_id, "application/json")
    if error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:g}"
    body = wire.to_json(wire.error(error.kind, str(error), request_id, code=error.code))
    return Response(body, status_code=error.status, headers=headers)


def main() -> None:
    """The command line: print the address, then serve."""
    parser = argparse.ArgumentParser(
        description="Serve a local Messages API with canned answers on 127.0.0.1."
    )
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--key", help="the only x-api-key to accept; any if not given")
    parser.add_argument("--drip-s", type=float, default=0.0, help="seconds between events")
    args = parser.parse_args()
    api = MessagesServer(key=args.key, port=args.port, drip_s=args.drip_s)
    print(f"listening on {api.url}\nanswers are canned: no model writes them", flush=True)
    api.serve()
