"""A version that its agent tries, opened at its public address: real nginx, real front.

The fake home asks as the control plane does.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent.apps.app import App
from agent.home.client import HomeClient
from agent.jobs.trials import PublicAddress, Verdict
from agent.serving.front import Front
from agent.serving.site import Serving, Site, Slot

from orchestrator.adapters.proxy.http_probe import HttpProbe
from orchestrator.contract.manifest import AppKind, Manifest
from orchestrator.domain import ids
from orchestrator.domain.pool.routes import Route, build_table
from tests.fakes.agents.home import SESSION_TOKEN, FakeHome
from tests.integration.proxy.world import (
    APPS_ADDRESS,
    Backend,
    Handler,
    Head,
    World,
    respond_with,
    running_world,
)


class Bench:
    """A sandbox that shows one version and tries another."""

    def __init__(self, world: World, home: FakeHome, folder: Path) -> None:
        self.world = world
        self.home = home
        self.slug = ids.new_slug()
        self.shown = world.backends.serve(respond_with("shown"), "127.0.0.1")
        self.site = Site(slot=Slot(folder=str(folder), port=self.shown.port))
        self.site.serving = Serving.PROCESS
        self.site.answer_to(self.slug)
        self._folder = folder
        self.front = world.backends.run(Front(self.site).listen(APPS_ADDRESS, 0))
        port = self.front.sockets[0].getsockname()[1]
        world.proxy.publish(build_table([Route(slug=self.slug, address=APPS_ADDRESS, port=port)]))
        control = f"127.0.0.1:{world.settings.control_port}"
        domain, public_port = world.settings.apps_domain, world.settings.listen_port
        self._probe = HttpProbe(control, domain, public_port)
        self.limit_s = 5.0
        home.walk = lambda secret: asyncio.run(
            self._probe.walk(self.slug, secret, patience_s=self.limit_s)
        )

    def serve(self, handler: Handler) -> Backend:
        return self.world.backends.serve(handler, "127.0.0.1")

    def problem_at(self, port: int) -> str:
        """What the trial of a version at this port says."""
        manifest = Manifest(kind=AppKind.PYTHON, start=("python3", "main.py"), title="App")
        slot = Slot(folder=str(self._folder), port=port)
        app = App(manifest, slot, add_log=lambda _: None, start_timeout_s=1)
        home = HomeClient(str(self.home.socket_path))
        address = PublicAddress(home, self.site, SESSION_TOKEN, unreached_limit_s=0)
        verdict: Verdict = self.world.backends.run(address.open(app))
        assert self.site.trial is None
        return verdict.problem if verdict.is_known else ""


@pytest.fixture(name="bench")
def _bench(tmp_path: Path) -> Iterator[Bench]:
    with running_world() as world, FakeHome(tmp_path) as home:
        bench = Bench(world, home, tmp_path)
        yield bench

        async def close() -> None:
            bench.front.close()

        world.backends.run(close())


def test_only_the_trial_reaches_the_version_that_is_tried(bench: Bench) -> None:
    tried = bench.serve(respond_with("tried"))

    assert bench.problem_at(tried.port) == ""
    (head,) = tried.heads
    assert head.headers["host"] == bench.world.host(bench.slug)
    assert "x-spawn-trial" not in head.headers
    assert bench.shown.heads == []
    response = bench.world.ask(bench.world.host(bench.slug), headers={"X-Spawn-Trial": "guess"})
    assert response.body == "shown"


def test_a_trial_answers_while_requests_of_visitors_are_held(bench: Bench) -> None:
    tried = bench.serve(respond_with("tried"))
    with bench.site.hold():
        assert bench.problem_at(tried.port) == ""
    assert len(tried.heads) == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "GET / answers 404, which"),
        (
            b"HTTP/1.1 500 X\r\nContent-Length: 0\r\nX-Spawn-Page: nothing\r\n\r\n",
            "GET / answers 500.",
        ),
        (b"", "closed the connection without a whole answer"),
        (b"nonsense\r\n\r\n", "is no valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", "has more than 64 KiB"),
    ],
)
def test_what_visitors_would_get_is_the_apps_problem(
    bench: Bench, answer: bytes, says: str
) -> None:
    async def odd(_: Head, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    assert says in bench.problem_at(bench.serve(odd).port)


def test_an_app_that_answers_only_other_names_is_told_so(bench: Bench) -> None:
    async def local(head: Head, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = "200 OK" if head.headers["host"] == "localhost" else "400 Bad Request"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    assert "GET / answers 400" in bench.problem_at(bench.serve(local).port)


def test_an_app_that_hangs_is_told_so(bench: Bench) -> None:
    async def never(_: Head, __: asyncio.StreamReader, ___: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    bench.limit_s = 2.0
    assert "GET / has no answer after 2 s." in bench.problem_at(bench.serve(never).port)


def test_an_app_that_takes_no_connection_is_told_so(bench: Bench) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "takes no request" in bench.problem_at(unused.getsockname()[1])


def test_what_is_ours_never_costs_the_app(bench: Bench) -> None:
    tried = bench.serve(respond_with("tried"))
    bench.world.proxy.publish(build_table([]))
    assert bench.problem_at(tried.port) == ""  # its route isn't published
    bench.world.kill()
    assert bench.problem_at(tried.port) == ""  # the proxy is down
    bench.home.stop()
    assert bench.problem_at(tried.port) == ""  # nobody to ask
    assert tried.heads == []
