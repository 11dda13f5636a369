"""Processes of the API that ask each other, and that leave without cutting anybody off."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from orchestrator import config
from orchestrator.adapters import api_socket
from orchestrator.entrypoints.api import public_app
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.serving import make_server, serve
from tests.fakes.hub import deaf_hub
from tests.fakes.samples import NOW
from tests.integration.serving import serving
from tests.unit.services.conftest import catalog, world
from tests.unit.services.world import World

__all__ = ["catalog", "world"]


@pytest.fixture
def contexts(world: World, tmp_path: Path) -> Iterator[list[Context]]:
    """Those of two processes of one installation."""
    settings = config.make(state_dir=tmp_path)
    settings.places.api_folder.mkdir()
    both = [
        Context(settings=settings, deps=world.deps, hub=deaf_hub(), started_at=NOW, number=number)
        for number in (1, 2)
    ]
    yield both
    for context in both:
        context.threads.shutdown()


def test_metrics_are_the_same_whichever_process_answers(contexts: list[Context]) -> None:
    first, second = contexts
    first.api_metrics.refused_polls.inc(2)
    second.api_metrics.refused_polls.inc(5)
    second.api_metrics.generations.labels("yes").inc()
    for own, other in ((first, second), (second, first)):
        path = other.settings.places.api_socket(other.number)
        with serving(lambda: make_server(public_app.build(other), uds=str(path))):  # noqa: B023 - called at once
            assert api_socket.is_healthy(path)
            lines = metrics_of(own)
        assert {
            'spawn_refused_polls_total{process="1"} 2.0',
            'spawn_refused_polls_total{process="2"} 5.0',
            'spawn_generation_cache_total{hit="yes",process="2"} 1.0',
            'spawn_api_process_up{process="1"} 1.0',
            'spawn_api_process_up{process="2"} 1.0',
        } <= set(lines)
        assert lines.count("# TYPE spawn_refused_polls_total counter") == 1


def test_metrics_say_which_process_does_not_answer(contexts: list[Context]) -> None:
    first, second = contexts
    assert not api_socket.is_healthy(second.settings.places.api_socket(2))
    lines = metrics_of(first)
    assert 'spawn_api_process_up{process="2"} 0.0' in lines
    assert 'spawn_refused_polls_total{process="1"} 0.0' in lines


def test_a_server_that_leaves_answers_what_it_has_been_sent(tmp_path: Path) -> None:
    """A client may just be sending on a connection that it has kept, or have just connected."""
    path = tmp_path / "server.sock"
    entered, go_on = threading.Event(), threading.Event()

    async def slow(_: Request) -> Response:
        entered.set()
        await asyncio.to_thread(go_on.wait, 20)
        return PlainTextResponse("slow")

    async def fast(_: Request) -> Response:
        return PlainTextResponse("fast")

    app = Starlette(routes=[Route("/slow", slow), Route("/fast", fast)])
    loops: list[asyncio.AbstractEventLoop] = []

    def make() -> Any:
        loops.append(asyncio.get_running_loop())
        return make_server(app, uds=str(path))

    with serving(make) as server:
        kept, busy, new = (connect(path) for _ in range(3))
        assert ask(kept, "/fast") == ("fast", None)
        busy.request("GET", "/slow")
        assert entered.wait(20)
        leaving = asyncio.run_coroutine_threadsafe(server.leave(path), loops[0])
        while path.exists():
            assert not leaving.done()
        with pytest.raises(FileNotFoundError):
            connect(path)
        assert ask(kept, "/fast") == ("fast", "close")
        assert ask(new, "/fast") == ("fast", "close")
        assert not leaving.done()
        go_on.set()
        answer = busy.getresponse()
        assert (answer.read(), answer.getheader("connection")) == (b"slow", "close")
        leaving.result(20)


def test_a_part_that_fails_ends_the_process_and_its_reason_is_not_lost(tmp_path: Path) -> None:
    async def fail() -> None:
        raise OSError("the folder of the sockets is gone")

    async def run() -> None:
        server = make_server(Starlette(), uds=str(tmp_path / "server.sock"))
        await serve([server], deaf_hub(), [fail()])

    with pytest.raises(OSError, match="the folder of the sockets is gone"):
        asyncio.run(run())


def test_nobody_meets_a_socket_before_it_is_open_to_others(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:  # by an earlier process
        left_behind.bind(str(path))
    path.chmod(0o600)
    with serving(lambda: make_server(Starlette(), uds=str(path))) as server:
        bound_as = server.servers[0].sockets[0].getsockname()

        assert bound_as == str(tmp_path / ".server.sock")
        assert list(tmp_path.iterdir()) == [path]
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        with contextlib.closing(connect(path)) as connection:
            assert ask(connection, "/")[0] == "Not Found"


def metrics_of(context: Context) -> list[str]:
    client = TestClient(public_app.build(context), base_url="http://localhost")
    return client.get("/metrics").text.splitlines()


def connect(path: Path) -> http.client.HTTPConnection:
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.connect(str(path))
        stack.pop_all()
    connection = http.client.HTTPConnection("server", timeout=20)
    connection.sock = sock
    return connection


def ask(connection: http.client.HTTPConnection, target: str) -> tuple[str, str | None]:
    connection.request("GET", target)
    answer = connection.getresponse()
    return answer.read().decode(), answer.getheader("connection")
