"""What a real server answers to requests that never reach an app."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette

from orchestrator.entrypoints.api.serving import make_server
from tests.integration.serving import serving


@pytest.fixture(name="address", scope="module")
def _address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("server") / "a.sock"
    with serving(lambda: make_server(Starlette(), uds=str(path))):
        yield path


@pytest.mark.parametrize(
    "head",
    [
        "BREW /api/sessions HTTP/1.1\r\nHost: a\r\n\r\n",
        "FOO-BAR / HTTP/1.1\r\nHost: a\r\n\r\n",
        f"{'X' * 200} / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "nonsense\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_a_problem(address: Path, head: str) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(30)
        client.connect(str(address))
        client.sendall(head.encode())
        answer = http.client.HTTPResponse(client)
        answer.begin()
        problem = json.loads(answer.read())
        assert client.recv(1) == b"", "the connection is still open"
    assert (answer.status, answer.getheader("Content-Type")) == (400, "application/problem+json")
    assert (problem["status"], problem["code"]) == (400, "bad_request")
    assert answer.getheader("Connection") == "close"
