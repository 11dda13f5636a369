"""An engine that listens on a socket and answers what a test says."""

from __future__ import annotations

import contextlib
import http.server
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VERSION = b'{"ApiVersion": "1.41"}'


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False


class OddEngine:
    """GET answers by the end of the path, without the API's version; else 404.

    `more_events` goes on with the stream of events for as long as it is read.
    """

    def __init__(self, *, more_events: Callable[[], bytes] | None = None, **answers: bytes) -> None:
        self.answers = {"version": VERSION, "_ping": b"OK", "events": b"", **answers}
        self.more_events = more_events
        self.stopping = threading.Event()

    @contextlib.contextmanager
    def listen(self, path: Path) -> Iterator[str]:
        """Serve at that socket. Yields its URL."""
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.partition("?")[0].rpartition("/")[2]
                body = engine.answers.get("list" if name == "json" else name)
                self.send_response(404 if body is None else 200)
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body or b"")
                self.wfile.flush()
                if name == "events":
                    self._go_on()
                self.close_connection = True

            def _go_on(self) -> None:
                with contextlib.suppress(OSError):  # the client has hung up
                    while engine.more_events is not None and not engine.stopping.is_set():
                        self.wfile.write(engine.more_events())
                engine.stopping.wait()  # the stream goes on without events

            def address_string(self) -> str:
                return "local"

            def log_message(self, *_: Any) -> None:
                pass

        with _Server(str(path), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield f"unix://{path}"
            finally:
                self.stopping.set()
                server.shutdown()
                thread.join()
