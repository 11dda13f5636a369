"""A fake provider for gateway tests: Anthropic's API and an OpenAI-compatible one on a free port.

It gives the same short answer each time, unless a test scripts another one. It can hold all calls
at a gate. It counts the calls that arrived, ran at the same time, and were cancelled by the client.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import uvicorn

Json = dict[str, Any]

WORDS = ("Hello ", "from ", "the ", "provider.")
INPUT_TOKENS = 11
OUTPUT_TOKENS = 7


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """One answer to one call."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = "overloaded_error"  # the error's type, if the status is an error
    cut_after: int | None = None  # the connection breaks after so many events of a stream
    events: tuple[Json, ...] | None = None  # of a stream; None: the usual ones
    drop: bool = False  # close the connection without an answer


@dataclass(frozen=True, kw_only=True)
class RecordedRequest:
    """One request as it arrived."""

    path: str
    query: str
    headers: Mapping[str, str]
    body: Json


class ProviderFake:
    """`with ProviderFake() as provider: ... provider.url`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._scripted: deque[Scripted] = deque()
        self._always: Scripted | None = None
        self._requests: list[RecordedRequest] = []
        self._running = self.max_running = self.cancelled = self.finished = 0
        self._stream_gate_after: int | None = None
        # IPPROTO_TCP must be explicit. Otherwise asyncio leaves Nagle's algorithm on, and every
        # second packet is 40 ms late.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(128)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self._app, interface="asgi3", log_config=None, access_log=False, lifespan="off"
        )
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gate: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="provider", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.should_exit = True
        self._thread.join(timeout=10)
        assert not self._thread.is_alive(), "the provider did not stop within 10 s"

    # Called by tests, to script it

    def play(self, *answers: Scripted) -> None:
        """Answer the next calls with these answers, one each."""
        with self._changed:
            self._scripted.extend(answers)

    def always(self, answer: Scripted | None) -> None:
        """Answer with this when no other answer is scripted. None: the usual answer."""
        with self._changed:
            self._always = answer

    def hold(self, *, after_events: int | None = None) -> None:
        """Hold back all answers until `release`: from the start, or after so many stream events."""
        self._stream_gate_after = after_events
        self._set_gate(False)

    def release(self) -> None:
        self._set_gate(True)

    # Called by tests, to look at it

    @property
    def requests(self) -> list[RecordedRequest]:
        with self._changed:
            return list(self._requests)

    def wait_for(self, **counts: int) -> None:
        """Wait until so many `requests` arrived, were `finished` or `cancelled`."""

        def reached() -> bool:
            counted = {
                "requests": len(self._requests),
                "finished": self.finished,
                "cancelled": self.cancelled,
            }
            return all(counted[name] >= count for name, count in counts.items())

        with self._changed:
            assert self._changed.wait_for(reached, 20), (counts, self._requests, self.cancelled)

    # The server

    def _serve(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._gate = asyncio.Event()
            self._gate.set()
            self._ready.set()
            with self._socket:
                await self._server.serve(sockets=[self._socket])

        asyncio.run(main())

    def _set_gate(self, is_open: bool) -> None:
        assert self._loop is not None
        assert self._gate is not None
        changed = threading.Event()

        def change() -> None:
            assert self._gate is not None
            (self._gate.set if is_open else self._gate.clear)()
            changed.set()

        self._loop.call_soon_threadsafe(change)
        assert changed.wait(10)

    def _count(self, **changes: int) -> None:
        with self._changed:
            self._running += changes.pop("running", 0)
            self.max_running = max(self.max_running, self._running)
            self.cancelled += changes.pop("cancelled", 0)
            self.finished += changes.pop("finished", 0)
            self._changed.notify_all()

    async def _app(self, scope: Json, receive: Any, send: Any) -> None:
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        body = json.loads(raw)
        with self._changed:
            self._requests.append(
                RecordedRequest(
                    path=scope["path"],
                    query=scope["query_string"].decode(),
                    headers={name.decode(): value.decode() for name, value in scope["headers"]},
                    body=body,
                )
            )
            script = self._scripted.popleft() if self._scripted else self._always or Scripted()
        self._count(running=1)
        answer = asyncio.create_task(self._answer(scope["path"], body, script, send))
        disconnect = asyncio.create_task(receive())
        await asyncio.wait({answer, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            answer.result()
            self._count(running=-1, finished=1)
        else:
            answer.cancel()
            self._count(running=-1, cancelled=1)
        disconnect.cancel()

    async def _answer(self, path: str, body: Json, script: Scripted, send: Any) -> None:
        assert self._gate is not None
        if self._stream_gate_after is None:
            await self._gate.wait()
        if script.drop:
            return
        if script.status >= 400:
            error = {"type": script.error, "message": f"scripted {script.status}"}
            await _send(send, script, [json.dumps({"type": "error", "error": error}).encode()])
        elif path.endswith("/count_tokens"):
            await _send(send, script, [json.dumps({"input_tokens": INPUT_TOKENS}).encode()])
        elif path.endswith("/chat/completions"):
            await self._completion(body, script, send)
        elif body.get("stream"):
            events = script.events or tuple(stream_of(body))
            await self._stream([frame(event) for event in events], script, send)
        else:
            await _send(send, script, [json.dumps(message_of(body)).encode()])

    async def _completion(self, body: Json, script: Scripted, send: Any) -> None:
        if not body.get("stream"):
            await _send(send, script, [json.dumps(completion_of(body)).encode()])
            return
        chunks = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks_of(body)]
        await self._stream([*chunks, b"data: [DONE]\n\n"], script, send)

    async def _stream(self, frames: list[bytes], script: Scripted, send: Any) -> None:
        assert self._gate is not None
        await send(_start(200, {**script.headers, "content-type": "text/event-stream"}))
        for number, frame_bytes in enumerate(frames):
            if number == script.cut_after:
                return
            if number == self._stream_gate_after:
                await self._gate.wait()
            await send({"type": "http.response.body", "body": frame_bytes, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def message_of(body: Json) -> Json:
    content: list[Json] = [{"type": "text", "text": "".join(WORDS)}]
    if body.get("tools"):
        name = body["tools"][0]["name"]
        content.append({"type": "tool_use", "id": "toolu_1", "name": name, "input": {"path": "a"}})
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": "tool_use" if body.get("tools") else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS},
    }


def stream_of(body: Json) -> list[Json]:
    whole = message_of(body)
    start = {**whole, "content": [], "stop_reason": None}
    start["usage"] = {"input_tokens": INPUT_TOKENS, "output_tokens": 1}
    events: list[Json] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(whole["content"]):
        empty = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events.append({"type": "ping"})
        if block["type"] == "text":
            deltas: list[Json] = [{"type": "text_delta", "text": word} for word in WORDS]
        else:
            encoded = json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": encoded}]
        events += [
            {"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas
        ]
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": OUTPUT_TOKENS}
    return [
        *events,
        {"type": "message_delta", "delta": delta, "usage": usage},
        {"type": "message_stop"},
    ]


def completion_of(body: Json) -> Json:
    message: Json = {"role": "assistant", "content": "".join(WORDS)}
    if body.get("tools"):
        name = body["tools"][0]["function"]["name"]
        function = {"name": name, "arguments": '{"path": "a"}'}
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
    finish = "tool_calls" if body.get("tools") else "stop"
    return {
        "id": "cmpl_1",
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS},
    }


def chunks_of(body: Json) -> list[Json]:
    whole = completion_of(body)
    message, finish = whole["choices"][0]["message"], whole["choices"][0]["finish_reason"]
    deltas: list[Json] = [{"content": word} for word in WORDS]
    for index, call in enumerate(message.get("tool_calls", ())):
        function = {**call["function"], "arguments": ""}
        deltas.append({"tool_calls": [{**call, "index": index, "function": function}]})
        arguments = {"arguments": call["function"]["arguments"]}
        deltas.append({"tool_calls": [{"index": index, "function": arguments}]})
    chunks = [_chunk(whole, [{"index": 0, "delta": delta}]) for delta in deltas]
    chunks.append(_chunk(whole, [{"index": 0, "delta": {}, "finish_reason": finish}]))
    return [*chunks, {**_chunk(whole, []), "usage": whole["usage"]}]


def frame(event: Json) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _chunk(whole: Json, choices: list[Json]) -> Json:
    return {"id": whole["id"], "model": whole["model"], "choices": choices}


def _start(status: int, headers: Mapping[str, str]) -> Json:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": raw}


async def _send(send: Any, script: Scripted, chunks: list[bytes]) -> None:
    await send(_start(script.status, {"content-type": "application/json", **script.headers}))
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
