"""A server of ours waits for its end, and doesn't look for it all the time."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from orchestrator.entrypoints.api import serving
from tests.fakes.waitless import LoopWithoutWaits


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers nothing."""


class CountingServer(serving.Server):
    """Counts the looks of its main loop."""

    looks = 0

    async def on_tick(self, counter: int) -> bool:
        self.looks += 1
        return await super().on_tick(counter)


def run_for(seconds: float) -> tuple[CountingServer, float]:
    """Run the main loop of a server that is told to end after so many seconds. Returns the seconds
    that it took, too."""
    config = serving.make_server(silent, headers=[("X-Ours", "1")]).config
    config.load()
    server = CountingServer(config)
    loop = LoopWithoutWaits()

    async def run() -> None:
        loop.call_later(seconds, server.end)
        await server.main_loop()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())
    return server, loop.now


def test_a_server_ends_when_it_is_told_to() -> None:
    server, took_s = run_for(0.25)
    assert took_s == pytest.approx(0.25)
    assert server.should_exit


def test_a_server_at_rest_looks_once_a_second() -> None:
    server, _ = run_for(60.5)
    assert server.looks <= 62


def test_answers_have_their_headers_from_the_start() -> None:
    server, _ = run_for(0.25)
    assert (b"x-ours", b"1") in server.server_state.default_headers
