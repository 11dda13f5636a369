"""The files of the page and its documentation, which a real nginx serves from its own copies."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from orchestrator.adapters.proxy import nginx, page_files
from tests.integration.proxy.world import World, open_files, running_world

BUNDLE = "/static/swagger/swagger-ui-bundle.js"


@pytest.fixture(name="world")
def _world() -> Iterator[World]:
    with running_world() as world:
        yield world


def ask(
    world: World, target: str, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", world.settings.listen_port, timeout=10)
    with closing(connection):
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, target, headers={"Host": "localhost", **fields})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def test_each_file_is_served_without_the_api(world: World) -> None:
    types = {
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
    files = [path for path in world.settings.page_files.iterdir() if path.is_file()]
    assert len(files) > 10
    for path in files:
        status, headers, body = ask(world, f"/static/{path.name}")
        assert (status, body) == (200, path.read_bytes())
        assert headers["Content-Type"] == types[path.suffix]
        assert headers["Cache-Control"] == "no-cache"
        for name, value in page_files.SECURITY_HEADERS:
            assert headers.get_all(name) == [value]
        status, head, body = ask(world, f"/static/{path.name}", "HEAD")
        assert (status, head["Content-Length"], body) == (200, headers["Content-Length"], b"")
    assert ask(world, "/static/swagger/swagger-ui.css")[0] == 200
    assert world.api.heads == []


def test_what_slow_clients_leave_unread_waits_nowhere(world: World) -> None:
    """Not on the disk of the proxy, and not in the API."""
    head = f"GET {BUNDLE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(20)]
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(10)
            client.connect(("127.0.0.1", world.settings.listen_port))
            client.sendall(head)
        assert {client.recv(12) for client in clients} == {b"HTTP/1.1 200"}
        assert open_files(world.settings.folder / "temp") == []
    assert world.api.heads == []


def test_a_browser_gets_a_file_compressed_and_only_once(world: World) -> None:
    status, headers, body = ask(world, BUNDLE, Accept_Encoding="gzip")
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert gzip.decompress(body) == ask(world, BUNDLE)[2]
    status, headers, _ = ask(world, BUNDLE, Accept_Encoding="gzip", If_None_Match=headers["ETag"])
    assert (status, headers["Cache-Control"]) == (304, "no-cache")


@pytest.mark.parametrize(
    "target", ["/static/none.js", "/static/swagger/", "/static/web/", "/static/page.js/x"]
)
def test_there_is_nothing_else(world: World, target: str) -> None:
    status, headers, body = ask(world, target)
    assert (status, headers["Content-Type"]) == (404, "application/problem+json")
    assert json.loads(body)["code"] == "not_found"
    status, headers, _ = ask(world, target, Accept="text/html")
    assert (status, headers["Content-Type"]) == (404, "text/html")


@pytest.mark.parametrize(
    "target", ["/static/../nginx.conf", "/static/%2e%2e/nginx.conf", "/static//..%2fnginx.conf"]
)
def test_no_path_leads_out_of_the_folder(world: World, target: str) -> None:
    assert b"worker_processes" not in ask(world, target)[2]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(world: World, method: str) -> None:
    status, headers, _ = ask(world, "/static/page.js", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert world.api.heads == []


def test_an_upgrade_replaces_and_removes_files(world: World, tmp_path: Path) -> None:
    (tmp_path / "page.js").write_text("new")
    page_files.copy(tmp_path, world.settings.folder / "static")
    status, headers, body = ask(world, "/static/page.js")
    assert (status, body) == (200, b"new")
    assert ask(world, "/static/style.css")[0] == 404
    assert ask(world, BUNDLE)[0] == 200
    os.utime(tmp_path / "page.js", (1, 1))
    nginx.write_base(world.settings)
    assert ask(world, "/static/style.css")[0] == 200
    assert ask(world, "/static/page.js")[1]["ETag"] != headers["ETag"]
