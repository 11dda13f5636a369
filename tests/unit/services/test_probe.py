"""Hosts are asked whether they are well, and fenced before they take anybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.domain import errors
from orchestrator.domain.host import HostState
from orchestrator.services import pool
from tests.fakes import samples
from tests.fakes.engine import (
    EngineInMemory,
    EngineThatIsDown,
)
from tests.fakes.samples import NOW
from tests.unit.services.world import World


@pytest.mark.parametrize(
    ("before", "answers", "image", "after"),
    [
        (HostState.JOINING, True, True, HostState.UP),
        (HostState.JOINING, True, False, HostState.SUSPECT),
        (HostState.JOINING, False, True, HostState.SUSPECT),
        (HostState.UP, True, True, HostState.UP),
        (HostState.UP, True, False, HostState.SUSPECT),
        (HostState.UP, False, True, HostState.SUSPECT),
        (HostState.SUSPECT, True, True, HostState.UP),
        (HostState.SUSPECT, False, True, HostState.SUSPECT),
        (HostState.LOST, True, True, HostState.UP),
        (HostState.LOST, False, True, HostState.LOST),
    ],
)
def test_a_probe_says_what_a_host_is(
    world: World, before: HostState, answers: bool, image: bool, after: HostState
) -> None:
    host = world.host(state=before, seen_at=samples.later(-5))
    world.engine = engine = EngineThatIsDown()
    engine.down = not answers
    engine.images = {samples.IMAGE} if image else set()
    assert pool.probe(world.deps, host).state is after
    stored = world.store.hosts.get(host.id)
    assert stored.state is after
    assert bool(stored.reason) == (after is not HostState.UP)
    if not answers:
        assert stored.seen_at == samples.later(-5)
    assert ("pool" in world.events.sent) == (after is HostState.UP and before is not after)


@pytest.mark.parametrize("before", [HostState.JOINING, HostState.SUSPECT, HostState.UP])
def test_a_host_is_fenced_before_it_takes_placements(world: World, before: HostState) -> None:
    host = world.host(state=before)
    assert pool.probe(world.deps, host).state is HostState.UP
    assert world.engine.prepared == (0 if before is HostState.UP else 1)


def test_a_host_that_cannot_be_fenced_takes_no_placements(world: World) -> None:
    class EngineWithoutNetworks(EngineInMemory):
        def prepare(self) -> Sequence[str]:
            raise errors.EngineUnavailable("the network could not be made")

    host = world.host(state=HostState.JOINING)
    world.engine = EngineWithoutNetworks()
    after = pool.probe(world.deps, host)
    assert (after.state, after.reason) == (HostState.SUSPECT, "the network could not be made")


def test_a_missing_image_is_said_with_the_command_that_makes_it(world: World) -> None:
    host = world.host()
    world.engine.images.clear()
    assert "spawnctl image build" in pool.probe(world.deps, host).reason


def test_a_host_that_is_as_it_was_is_not_written_at_every_probe(world: World) -> None:
    host = world.host()
    world.clock.advance(10)
    pool.probe(world.deps, host)
    assert world.store.hosts.get(host.id).seen_at == NOW
    world.clock.advance(0.1)
    pool.probe(world.deps, host)
    assert world.store.hosts.get(host.id).seen_at == world.clock.now()


def test_a_probe_never_undoes_what_an_operator_did_meanwhile(world: World) -> None:
    host = world.host(state=HostState.JOINING)
    world.store.hosts.put(replace(host, cordoned=True, slots=7))
    pool.probe(world.deps, host)  # with what was read before
    stored = world.store.hosts.get(host.id)
    assert (stored.state, stored.cordoned, stored.slots) == (HostState.UP, True, 7)
