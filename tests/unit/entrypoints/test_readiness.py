"""When a child counts as ready: it is asked where it listens, under a name that it answers to."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.entrypoints import children


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers like a healthy control plane, and keeps the names by which it was asked."""

    hosts: list[str]

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        body = json.dumps({"status": "ok"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def healthy_server(address: str) -> Iterator[tuple[int, list[str]]]:
    class Server(http.server.HTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    handler = type("Recorder", (Handler,), {"hosts": []})
    with Server((address, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], handler.hosts  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1", "0.0.0.0", "::"])
def test_the_proxy_is_asked_where_it_listens(tmp_path: Path, address: str) -> None:
    with healthy_server(address) as (port, hosts):
        settings = config.make(state_dir=tmp_path, http_address=address, http_port=port)
        (nginx,) = (child for child in children.all_children(settings) if child.name == "nginx")
        assert nginx.ready()
    assert hosts == ["localhost"]
