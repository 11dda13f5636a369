"""A small home on a UNIX socket, for tests of the agent: inbox, reports, bundles, Messages API.

It follows the agent protocol and nothing else of the control plane. It fails as it is told:
`dismissed` refuses the sandbox, `stop` and `start` are a restart, and the model's answers are a
script, errors included. Everything that arrives is kept, in order, in plain lists.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

SANDBOX_TOKEN = "sandbox-secret-7f3a"
SESSION_TOKEN = "session-secret-91bc"
SOCKET_NAME = "agent.sock"


@dataclass(frozen=True, kw_only=True)
class ModelAnswer:
    """One scripted answer of the Messages API: SSE events, or an error body with its status."""

    events: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    error: dict[str, Any] | None = None


class FakeHome:
    """Start it as a context manager. `folder` is what a sandbox mounts at /run/spawn."""

    def __init__(self, folder: Path) -> None:
        self.socket_path = folder / SOCKET_NAME
        self.changed = threading.Condition()
        self.assignment: dict[str, Any] | None = None
        self.bundle = b""
        self.dismissed = False
        self.model_script: list[ModelAnswer] = []
        # What arrived, oldest first; `story` has the kinds of calls in their order.
        self.polls: list[dict[str, str]] = []
        self.reports: list[dict[str, Any]] = []
        self.uploads: list[bytes] = []
        self.model_requests: list[dict[str, Any]] = []
        self.story: list[str] = []
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        self._server = _Server(str(self.socket_path), _Handler)
        self._server.home = self
        os.chmod(self.socket_path, 0o666)  # noqa: PTH101
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Close the socket and remove its file, as a control plane that goes down."""
        server, self._server = self._server, None
        if server is not None:
            server.stopping = True
            with self.changed:
                self.changed.notify_all()
            server.shutdown()
            server.server_close()
            self.socket_path.unlink(missing_ok=True)

    def assign(self, assignment_id: str, *, bundle: bytes = b"", **fields: Any) -> None:
        """Put an assignment into the inbox; with a bundle its kind is `bundle` unless told."""
        reference = {"sha256": hashlib.sha256(bundle).hexdigest(), "size_bytes": len(bundle)}
        with self.changed:
            self.bundle = bundle
            self.assignment = {
                "id": assignment_id,
                "kind": "bundle",
                "session_id": "ses_test",
                "session_token": SESSION_TOKEN,
                "slug": "session-slug",
                "prompt": None,
                "model": None,
                "max_tokens": 8000,
                "bundle": reference if bundle else None,
                "start_timeout_s": 30.0,
                **fields,
            }
            self.changed.notify_all()

    def dismiss(self) -> None:
        with self.changed:
            self.dismissed = True
            self.changed.notify_all()

    def record(self, what: str, into: list[Any], item: Any) -> None:
        with self.changed:
            into.append(item)
            self.story.append(what)
            self.changed.notify_all()

    def wait_until(self, what: str, holds: Callable[[], Any], *, deadline_s: float = 60.0) -> Any:
        """Return the first true value of `holds`, looked at whenever something arrives."""
        with self.changed:
            value = self.changed.wait_for(holds, timeout=deadline_s)
        if not value:
            raise AssertionError(f"gave up waiting for {what}; reports: {self.reports[-3:]}")
        return value

    def wait_for_phase(self, phase: str, *, deadline_s: float = 60.0) -> dict[str, Any]:
        """The first report with this phase. A report of failure ends the wait for another."""

        def arrived() -> dict[str, Any] | None:
            ends = (report for report in self.reports if report["phase"] in (phase, "failed"))
            return next(ends, None)

        report: dict[str, Any] = self.wait_until(f"phase {phase}", arrived, deadline_s=deadline_s)
        if report["phase"] != phase:
            raise AssertionError(f"failed instead of {phase}: {report}")
        return report


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64
    home: FakeHome
    stopping = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An agent that is stopped hangs up in the middle of things: that's no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Keep quiet."""

    def do_GET(self) -> None:
        home = self.server.home
        url = urlsplit(self.path)
        if url.path == "/agent/inbox" and self._bearer() == SANDBOX_TOKEN:
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            home.record("poll", home.polls, query)
            self._inbox(float(query["wait"]), query.get("have", ""))
        elif url.path == "/agent/bundle" and self._bearer() == SESSION_TOKEN:
            self._answer(200, home.bundle, "application/gzip")
        else:
            self._answer(403)

    def do_PUT(self) -> None:
        home = self.server.home
        body = self._body()
        sealed = hashlib.sha256(body).hexdigest() == self.headers["X-Spawn-Sha256"]
        if self.path != "/agent/bundle" or self._bearer() != SESSION_TOKEN or not sealed:
            self._answer(403)
            return
        home.record("upload", home.uploads, body)
        self._answer(201, json.dumps({"version": len(home.uploads)}).encode())

    def do_POST(self) -> None:
        home = self.server.home
        body = json.loads(self._body())
        # The SDK sends a key that isn't one of Anthropic's as a bearer token.
        key = self.headers["x-api-key"] or self._bearer()
        if self.path == "/v1/messages" and key == SESSION_TOKEN:
            home.record("model", home.model_requests, body)
            self._model_answer(home.model_script.pop(0))
        elif self.path.endswith("/progress") and self._bearer() == SESSION_TOKEN:
            home.record(body["phase"], home.reports, body)
            self._answer(200, b'{"accepted": true}')
        else:
            self._answer(403)

    def _inbox(self, wait_s: float, have: str) -> None:
        home = self.server.home

        def news() -> bool:
            other = home.assignment is not None and home.assignment["id"] != have
            return other or home.dismissed or self.server.stopping

        with home.changed:
            home.changed.wait_for(news, timeout=wait_s)
            assignment = home.assignment
        if home.dismissed:
            self._answer(410)
        elif self.server.stopping:
            self.close_connection = True
        elif assignment is not None and assignment["id"] != have:
            self._answer(200, json.dumps({"assignment": assignment}).encode())
        else:
            self._answer(204)

    def _model_answer(self, answer: ModelAnswer) -> None:
        if answer.error is not None:
            body = json.dumps({"type": "error", "error": answer.error}).encode()
            self._answer(answer.status, body)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in answer.events:
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
        self.close_connection = True

    def _bearer(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _answer(self, status: int, body: bytes = b"", kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def tool_call(tool_input: object, *, name: str = "write_files") -> ModelAnswer:
    """The model calls the tool; its input arrives in small pieces. A `str` goes out as it is."""
    text = tool_input if isinstance(tool_input, str) else json.dumps(tool_input)
    block = {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}}
    pieces = [text[start : start + 64] for start in range(0, len(text), 64)]
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return ModelAnswer(events=list(_message(block, deltas, "tool_use")))


def plain_text(text: str, *, stop_reason: str = "end_turn") -> ModelAnswer:
    """The model only talks."""
    block = {"type": "text", "text": ""}
    return ModelAnswer(
        events=list(_message(block, [{"type": "text_delta", "text": text}], stop_reason))
    )


def model_error(status: int, kind: str, message: str) -> ModelAnswer:
    return ModelAnswer(status=status, error={"type": kind, "message": message})


def _message(
    block: dict[str, Any], deltas: list[dict[str, Any]], stop_reason: str
) -> Iterator[dict[str, Any]]:
    usage = {"input_tokens": 10, "output_tokens": 1}
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": "fake", "content": []}
    yield {"type": "message_start", "message": {**start, "stop_reason": None, "usage": usage}}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    stop = {"stop_reason": stop_reason, "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 50}}
    yield {"type": "message_stop"}


def wait_for(what: str, holds: Callable[[], Any], *, deadline_s: float = 30.0) -> Any:
    """Ask `holds` until it is true: for what can't be waited upon, such as a remote state."""
    pause = threading.Event()
    ends_at = time.monotonic() + deadline_s
    while time.monotonic() < ends_at:
        with contextlib.suppress(OSError):
            value = holds()
            if value:
                return value
        pause.wait(0.05)
    raise AssertionError(f"gave up waiting for {what}")
