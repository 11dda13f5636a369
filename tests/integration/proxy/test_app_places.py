"""Who gets the places at an app's front when many want one: real nginx, real front."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent.serving.front import Front
from agent.serving.site import Serving, Site, Slot, Trial
from agent.serving.static_files import Folder

from orchestrator.adapters.proxy.client_limits import ClientLimits
from orchestrator.adapters.proxy.http_probe import HttpProbe
from orchestrator.adapters.proxy.route_links import endpoint
from orchestrator.contract.health import Condition
from orchestrator.contract.visits import PROBE_HEADER
from orchestrator.domain import ids
from orchestrator.domain.pool.routes import Route, build_table
from tests.integration.proxy.world import (
    APPS_ADDRESS,
    Head,
    Response,
    World,
    respond_with,
    running_world,
    wait_until,
)

PLACES = 4  # at the front
SECRET = "of-the-trial"


class Sandbox:
    """A front with few places before an app, and its public address."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.slug = ids.new_slug()
        self.app = world.backends.serve(answer_whole, "127.0.0.1")
        self.slot = Slot(folder=str(folder), port=self.app.port)
        self.site = Site(slot=self.slot)
        self.site.show(Serving.PROCESS, self.slot)
        self.site.answer_to(self.slug)
        front = Front(self.site, connections_max=PLACES)
        self.server = world.backends.run(front.listen(APPS_ADDRESS, 0))
        port = self.server.sockets[0].getsockname()[1]
        world.proxy.publish(build_table([Route(slug=self.slug, address=APPS_ADDRESS, port=port)]))

    def visit(self, address: str, **headers: str) -> Response:
        headers = {"X-Forwarded-For": address, **headers}
        return self.world.ask(self.world.host(self.slug), headers=headers)

    @contextlib.contextmanager
    def unfinished(self, count: int, address: str) -> Iterator[list[socket.socket]]:
        """So many POSTs whose body, of which the app hears at once, never comes."""
        head = (
            f"POST / HTTP/1.1\r\nHost: {self.world.host(self.slug)}\r\n"
            f"X-Forwarded-For: {address}\r\nContent-Length: 1000000\r\n\r\nx"
        )
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(self.world.connect()) for _ in range(count)]
            for client in clients:
                client.sendall(head.encode())
            yield clients

    def walk(self, trial: str = "") -> Condition:
        own = endpoint("127.0.0.1", self.world.settings.control_port)
        probe = HttpProbe(own, self.world.settings.apps_domain)
        return asyncio.run(probe.walk(self.slug, trial)).condition


async def answer_whole(
    head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError):
        await respond_with("welcome")(head, reader, writer)


@pytest.fixture(name="limits")
def _limits() -> ClientLimits:
    return ClientLimits(app_connections_per_address=2, connections_per_app=PLACES)


@pytest.fixture(name="sandbox")
def _sandbox(tmp_path: Path, limits: ClientLimits) -> Iterator[Sandbox]:
    with running_world(trusted_proxies=("127.0.0.1",), limits=limits) as world:
        sandbox = Sandbox(world, tmp_path)
        yield sandbox

        async def close() -> None:
            sandbox.server.close()

        world.backends.run(close())


def test_one_address_leaves_places_for_everybody_else(sandbox: Sandbox) -> None:
    with sandbox.unfinished(2 * PLACES, "9.9.9.9"):
        wait_until(lambda: len(sandbox.app.heads) == 2, "its share to reach the app")
        assert sandbox.visit("9.9.9.8").body == "welcome"
        assert sandbox.visit("9.9.9.9").status == 429


@pytest.mark.parametrize(
    "limits", [ClientLimits(app_connections_per_address=99, connections_per_app=99)]
)
def test_we_look_at_an_app_whose_places_are_all_taken(sandbox: Sandbox) -> None:
    with sandbox.unfinished(PLACES, "9.9.9.9"):
        wait_until(lambda: len(sandbox.app.heads) == PLACES, "all places to be taken")
        assert sandbox.visit("9.9.9.8").status == 503
        assert sandbox.visit("9.9.9.8", **{PROBE_HEADER: "1"}).status == 503, "it is no visitor's"
        assert sandbox.walk() is Condition.WELL
        assert PROBE_HEADER.lower() not in sandbox.app.heads[-1].headers
        sandbox.site.trial = Trial(
            SECRET, Serving.PROCESS, sandbox.slot, Folder(root=sandbox.slot.folder, files=())
        )
        assert sandbox.walk(SECRET) is Condition.WELL
        assert sandbox.site.trial.requests == 1
