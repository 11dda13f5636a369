"""An engine that listens on a socket and answers what a test says."""

from __future__ import annotations

import contextlib
import http.server
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VERSION = b'{"ApiVersion": "1.41"}'


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False


class OddEngine:
    """GET answers by the end of the path, without the API's version; else 404."""

    def __init__(self, **answers: bytes) -> None:
        self.answers = {"version": VERSION, "_ping": b"OK", "events": b"", **answers}
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
                    engine.stopping.wait()  # the stream goes on without events
                self.close_connection = True

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
