"""The server: accepts requests as the Messages API does, and answers from `answers.py`.

`main` serves in the foreground; as a context manager it serves in a thread, which tests use.
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
from orchestrator.entrypoints.demo.requests import ApiError, check_headers, checked
from orchestrator.entrypoints.demo.wire import Json, Reply

STOP_WITHIN_S = 10


class MessagesServer:
    """On a port of 127.0.0.1; 0 picks a free one. `url` says which."""

    def __init__(self, *, key: str | None = None, port: int = 0, drip_s: float = 0.0) -> None:
        """Listen. Only `key` is accepted, or any key; `drip_s` paces the events of a stream."""
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
        self._thread.join(timeout=STOP_WITHIN_S)
        if self._thread.is_alive():
            raise TimeoutError(f"the Messages API did not stop within {STOP_WITHIN_S} s")

    def serve(self) -> None:
        """Serve in this thread until told to stop."""
        with self._socket:
            self._server.run(sockets=[self._socket])

    def received(self, path: str, headers: Mapping[str, str], body: Any) -> None:
        """Hear of each request before it is judged; `body` is None when it was no JSON."""

    def answer(self, body: Json) -> Response:
        """Answer an accepted request."""
        reply = cut_to(answers.reply(body), body["max_tokens"])
        return self.deliver(body, reply, drip_s=self.drip_s)

    def spend(self, body: Json, reply: Reply) -> Json:
        """The `usage` of an answer."""
        return self._cache.usage(body, reply)

    def deliver(self, body: Json, reply: Reply, *, drip_s: float = 0.0) -> Response:
        """Send a reply, streamed or not, as the request wants it."""
        request_id, spent = wire.new_id("req"), self.spend(body, reply)
        if body.get("stream") is not True:
            headers = wire.headers(request_id, "application/json")
            return JSONResponse(wire.message(body, reply, spent), headers=headers)
        frames = [wire.frame(event) for event in wire.events(body, reply, spent)]
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
            wire.dumped(body)  # a lone surrogate is no text
        except (ValueError, RecursionError):
            body = None
        headers = dict(request.headers)
        self.received(request.url.path, headers, body)
        check_headers(headers, self._key)
        return checked(body, required, headers["anthropic-version"])


class Paced(StreamingResponse):
    """Chunks with a pause before each; if not `whole`, the connection is dropped after them."""

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
    """The reply, broken off where `max_tokens` are spent."""
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
    if isinstance(error, HTTPException):  # no such path, or another method
        kind = "not_found_error" if error.status_code == 404 else "invalid_request_error"
        error = ApiError(error.status_code, kind, error.detail)
    assert isinstance(error, ApiError)
    request_id = wire.new_id("req")
    headers = wire.headers(request_id, "application/json")
    if error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:g}"
    body = wire.dumped(wire.error(error.kind, str(error), request_id, code=error.code))
    return Response(body, status_code=error.status, headers=headers)


def main() -> None:
    """The command line: prints the address, then serves."""
    parser = argparse.ArgumentParser(
        description="Serve a local Messages API with canned answers on 127.0.0.1."
    )
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--key", help="the only x-api-key to accept; any if not given")
    parser.add_argument("--drip-s", type=float, default=0.0, help="seconds between events")
    given = parser.parse_args()
    api = MessagesServer(key=given.key, port=given.port, drip_s=given.drip_s)
    print(f"listening on {api.url}\nanswers are canned: no model writes them", flush=True)
    api.serve()
