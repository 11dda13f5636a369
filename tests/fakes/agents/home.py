"""A fake home on a UNIX socket, for tests of the agent: inbox, reports, bundles, gateway.

It speaks the agent protocol and nothing else of the control plane. A test makes it fail: `dismiss`
refuses the sandbox, `stop` and `start` are a restart. Answers of the model come from the Messages
API at `model_url`. Everything that arrives is kept, in order, in plain lists.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socketserver
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from orchestrator.contract.health import Condition, Finding
from orchestrator.contract.wire import Assignment, BundleRef, Kind, ProtocolError, parse_report

SANDBOX_TOKEN = "sandbox-secret-7f3a"
SESSION_TOKEN = "session-secret-91bc"
SOCKET_NAME = "agent.sock"


def assignment_to_start(bundle: BundleRef) -> Assignment:
    """An assignment as home gives it, to start this bundle."""
    return Assignment(
        id="a1",
        kind=Kind.BUNDLE,
        session_id="ses_1",
        session_token=SESSION_TOKEN,
        slug="abc",
        max_tokens=0,
        start_timeout_s=20,
        bundle=bundle,
    )


class FakeHome:
    """A context manager. A sandbox mounts `folder` at /run/spawn."""

    def __init__(self, folder: Path) -> None:
        self.socket_path = folder / SOCKET_NAME
        self.changed = threading.Condition()
        self.assignment: dict[str, Any] | None = None
        self.bundle = b""
        self.dismissed = False
        self.model_url = ""
        self.walk: Callable[[str], Finding] = lambda _: Finding(condition=Condition.WELL)
        # Everything that arrived, oldest first; `story` has the kinds of calls in their order.
        self.polls: list[dict[str, str]] = []
        self.reports: list[dict[str, Any]] = []
        self.uploads: list[bytes] = []
        self.unhealthy_uploads: list[bytes] = []
        self.model_requests: list[dict[str, Any]] = []
        self.trials: list[dict[str, Any]] = []
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
        """Close the socket and remove its file, as a control plane does when it stops."""
        server, self._server = self._server, None
        if server is not None:
            server.stopping = True
            with self.changed:
                self.changed.notify_all()
            server.shutdown()
            server.server_close()
            self.socket_path.unlink(missing_ok=True)

    def assign(self, assignment_id: str, *, bundle: bytes = b"", **fields: Any) -> None:
        """Put an assignment into the inbox. Its kind is `bundle` unless `fields` name another."""
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

    def record(self, event: str, items: list[Any], item: Any) -> None:
        with self.changed:
            items.append(item)
            self.story.append(event)
            self.changed.notify_all()

    def wait_until(self, event: str, holds: Callable[[], Any], *, deadline_s: float = 60.0) -> Any:
        """Call `holds` whenever something arrives, and return its first true value."""
        with self.changed:
            value = self.changed.wait_for(holds, timeout=deadline_s)
        if not value:
            raise AssertionError(f"gave up waiting for {event}; reports: {self.reports[-3:]}")
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
        """Ignore it: an agent that is stopped hangs up in the middle of a request."""


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
        is_intact = hashlib.sha256(body).hexdigest() == self.headers["X-Spawn-Sha256"]
        if self.path != "/agent/bundle" or self._bearer() != SESSION_TOKEN or not is_intact:
            self._answer(403)
            return
        healthy = self.headers["X-Spawn-Healthy"] == "1"
        home.record("upload", home.uploads if healthy else home.unhealthy_uploads, body)
        self._answer(201, json.dumps({"version": len(home.uploads)}).encode())

    def do_POST(self) -> None:
        home = self.server.home
        raw = self._body()
        body = json.loads(raw)
        # The SDK sends a key that isn't one of Anthropic's as a bearer token.
        key = self.headers["x-api-key"] or self._bearer()
        if self.path == "/v1/messages" and key == SESSION_TOKEN:
            home.record("model", home.model_requests, body)
            self._forward(raw)
        elif self.path == "/agent/trial" and self._bearer() == SESSION_TOKEN:
            home.record("trial", home.trials, body)
            self._answer(200, json.dumps(home.walk(body["secret"]).as_json()).encode())
        elif self.path.endswith("/progress") and self._bearer() == SESSION_TOKEN:
            try:
                parse_report(body)
            except ProtocolError:
                self._answer(422)
                return
            home.record(body["phase"], home.reports, body)
            self._answer(200, b'{"accepted": true}')
        else:
            self._answer(403)

    def _inbox(self, wait_s: float, have: str) -> None:
        home = self.server.home

        def has_news() -> bool:
            other = home.assignment is not None and home.assignment["id"] != have
            return other or home.dismissed or self.server.stopping

        with home.changed:
            home.changed.wait_for(has_news, timeout=wait_s)
            assignment = home.assignment
        if home.dismissed:
            self._answer(410)
        elif self.server.stopping:
            self.close_connection = True
        elif assignment is not None and assignment["id"] != have:
            self._answer(200, json.dumps({"assignment": assignment}).encode())
        else:
            self._answer(204)

    def _forward(self, raw: bytes) -> None:
        """Forward a request to the model, and its answer to the agent, also one that breaks off."""
        address = urlsplit(self.server.home.model_url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        names = ("anthropic-version", "content-type", "accept")
        headers = {name: self.headers[name] for name in names if name in self.headers}
        try:
            connection.request("POST", self.path, raw, {**headers, "x-api-key": "the real key"})
            response = connection.getresponse()
            self.send_response(response.status)
            for name in ("content-type", "retry-after", "request-id"):
                if response.getheader(name):
                    self.send_header(name, str(response.getheader(name)))
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while chunk := response.read1(65536):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except (OSError, http.client.HTTPException):
            self.close_connection = True
        finally:
            connection.close()

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


def wait_for(event: str, holds: Callable[[], Any], *, deadline_s: float = 30.0) -> Any:
    """Poll `holds` until it is true. For what gives no signal, such as the state of a container."""
    pause = threading.Event()
    ends_at = time.monotonic() + deadline_s
    while time.monotonic() < ends_at:
        with contextlib.suppress(OSError):
            value = holds()
            if value:
                return value
        pause.wait(0.05)
    raise AssertionError(f"gave up waiting for {event}")
