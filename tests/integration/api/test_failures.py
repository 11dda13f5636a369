"""What a real server writes into the log when a request fails for a reason that nobody expected."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from structlog.testing import capture_logs

from orchestrator.entrypoints.api.errors import handlers
from orchestrator.entrypoints.api.serving import make_server
from tests.integration.serving import serving

SECRET = "spk_never-to-be-seen"


async def fail(request: Request) -> Response:
    """A bug that an input triggers: its variables and its message hold the body."""
    body = (await request.body()).decode()
    return Response(str(int(body)))


def app() -> Starlette:
    """As the public app is built: an app within an app."""
    inner = Starlette(
        routes=[Route("/{name:path}", fail, methods=["POST"])],
        exception_handlers=cast(Any, handlers.HANDLERS),
    )
    return Starlette(routes=[Mount("/", inner)], exception_handlers=cast(Any, handlers.HANDLERS))


def post(path: Path, count: int) -> bytes:
    """The answers to this many requests over one connection."""
    head = f"POST /api/sessions?key={SECRET} HTTP/1.1\r\nHost: a\r\nCookie: {SECRET}\r\n"
    request = f"{head}Content-Length: {len(SECRET)}\r\n"
    answers = b""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        for number in range(count):
            last = "Connection: close\r\n" if number == count - 1 else ""
            connection.sendall(f"{request}{last}\r\n{SECRET}".encode())
            answers += connection.recv(65536)
        while more := connection.recv(65536):
            answers += more
    return answers


def test_a_failure_that_repeats_is_written_once_and_without_what_was_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.sock"
    with serving(lambda: make_server(app(), uds=str(path))), capture_logs() as logged:
        answers = post(path, 50)
    assert answers.count(b"HTTP/1.1 500") == 50
    assert answers.count(b'"code":"internal"') == 50
    (line,) = logged
    assert (line["event"], line["path"]) == ("request_failed", "/api/sessions")
    assert "ValueError" in line["exception"]
    assert "test_failures.py" in line["exception"]
    assert len(line["exception"]) <= 4096
    assert SECRET not in str(logged)
    assert caplog.records == [], "uvicorn writes the same traceback again"
