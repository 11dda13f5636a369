"""What a host's start curve learns from sandboxes that dial home."""

from __future__ import annotations

import pytest

from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.services.agents import inbox
from orchestrator.services.pool import claims
from tests.fakes import samples
from tests.unit.services.world import World


def start(world: World) -> Sandbox:
    """A sandbox for the warm pool whose container runs."""
    box = world.store.sandboxes.place(samples.new_sandbox(), world.clock.now())
    claims.start(world.deps, box, replace_stale=False)
    return box


def curve(world: World, host: Host) -> tuple[float | None, ...]:
    return world.store.hosts.get(host.id).starts.seconds


@pytest.mark.parametrize("routed", [False, True])
def test_a_first_visit_tells_how_long_the_start_took(world: World, routed: bool) -> None:
    host = world.host()
    box = start(world)
    if routed:
        world.publish()
    world.clock.advance(0.75)
    inbox.visit(world.deps, box.id, "")
    assert curve(world, host) == (0.75, None, None)


def test_a_start_counts_with_those_that_were_in_progress_when_it_was_placed(world: World) -> None:
    host = world.host(slots=9)
    boxes = [start(world) for _ in range(3)]
    for box in reversed(boxes):
        world.clock.advance(1)
        inbox.visit(world.deps, box.id, "")
    assert curve(world, host) == (3.0, 2.0, 1.0)


def test_a_sandbox_for_a_session_teaches_too(world: World) -> None:
    host = world.host()
    session = world.ask()
    world.converge(session)
    world.clock.advance(0.5)
    inbox.visit(world.deps, world.sandbox_of(session).id, "")
    assert curve(world, host) == (0.5, None, None)


def test_later_visits_teach_nothing(world: World) -> None:
    host = world.host()
    box = start(world)
    world.clock.advance(0.5)
    inbox.visit(world.deps, box.id, "")
    for _ in range(5):  # the proxy is away, so that it isn't warm yet
        world.clock.advance(12)
        inbox.visit(world.deps, box.id, "")
    world.publish()
    for _ in range(5):
        world.clock.advance(12)
        inbox.visit(world.deps, box.id, "")
    assert curve(world, host) == (0.5, None, None)


def test_a_sandbox_that_is_warm_only_long_after_its_first_visit_teaches_that_visit(
    world: World,
) -> None:
    host = world.host()
    box = start(world)
    world.clock.advance(0.5)
    inbox.visit(world.deps, box.id, "")
    world.clock.advance(60)
    world.publish()
    assert world.box(box.id).state is SandboxState.WARM
    world.clock.advance(0.1)
    inbox.visit(world.deps, box.id, "")
    assert curve(world, host) == (0.5, None, None)


def test_a_host_that_gets_slower_by_more_starts_is_given_fewer_at_once(world: World) -> None:
    host = world.host(slots=90)
    for _ in range(6):
        boxes = [start(world) for _ in range(world.store.hosts.get(host.id).starts.at_once)]
        world.publish()
        for number, box in enumerate(boxes):
            world.clock.advance(0.5 if number == 0 else 3)
            inbox.visit(world.deps, box.id, "")
    assert world.store.hosts.get(host.id).starts.at_once == 1
