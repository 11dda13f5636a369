"""A poll whose wake-up was lost is woken all the same, and no other one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.entrypoints.api.agents.lost_wake_ups import LostWakeUps
from orchestrator.entrypoints.api.context import Context
from orchestrator.services.pool import reconcile
from tests.fakes.hub import deaf_hub
from tests.fakes.samples import NOW
from tests.unit.services.world import World


@pytest.fixture
def context(world: World, tmp_path: Path) -> Iterator[Context]:
    world.add_host()
    settings = config.make(state_dir=tmp_path)
    context = Context(settings=settings, deps=world.deps, hub=deaf_hub(), started_at=NOW)
    yield context
    context.threads.shutdown()


class Bench:
    """Looks for lost wake-ups in an event loop of its own."""

    def __init__(self, context: Context) -> None:
        self._hub = context.hub
        self._lost = LostWakeUps(context)
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._lost.look())

    def is_woken(self, sandbox: Sandbox) -> bool:
        """Whether the next look wakes the poll of that sandbox."""
        return self._loop.run_until_complete(self._look(sandbox))

    async def _look(self, sandbox: Sandbox) -> bool:
        with self._hub.watch(f"inbox:{sandbox.id}") as watch:
            await self._lost.look()
            return await watch.wait(0)

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def bench(context: Context) -> Iterator[Bench]:
    with contextlib.closing(Bench(context)) as bench:
        yield bench


def test_a_sandbox_that_a_session_gets_is_woken_once(world: World, bench: Bench) -> None:
    claimed = world.add_warm_sandbox()
    world.clock.advance(1)
    warm = world.add_warm_sandbox()
    assert not bench.is_woken(claimed)
    world.converge(world.create_session())
    assert world.sandbox(claimed.id).state is SandboxState.CLAIMED
    assert bench.is_woken(claimed)
    assert not bench.is_woken(claimed)
    assert not bench.is_woken(warm)


def test_a_sandbox_whose_session_changes_is_woken(world: World, bench: Bench) -> None:
    sandbox, session = world.add_warm_sandbox(), world.create_session()
    world.converge(session)
    assert bench.is_woken(sandbox)
    world.store.sessions.save(replace(world.session(session), due_at=NOW))
    assert bench.is_woken(sandbox)


def test_a_sandbox_that_is_not_wanted_any_more_is_woken(world: World, bench: Bench) -> None:
    sandbox, session = world.add_warm_sandbox(), world.create_session()
    world.converge(session)
    assert bench.is_woken(sandbox)
    reconcile.mark_broken(world.deps, world.sandbox(sandbox.id), "it was switched off")
    assert bench.is_woken(sandbox)
