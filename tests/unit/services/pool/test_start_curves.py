"""A host's start curve, learnt from the first visits of its sandboxes."""

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
    sandbox = world.store.sandboxes.place(samples.new_sandbox(), world.clock.now())
    claims.start(world.deps, sandbox)
    return sandbox


def curve(world: World, host: Host) -> tuple[float | None, ...]:
    return world.store.hosts.get(host.id).starts.seconds


@pytest.mark.parametrize("routed", [False, True])
def test_the_first_visit_gives_the_duration_of_the_start(world: World, routed: bool) -> None:
    host = world.add_host()
    sandbox = start(world)
    if routed:
        world.publish()
    world.clock.advance(0.75)
    inbox.visit(world.deps, sandbox.id, "")
    assert curve(world, host) == (0.75, None, None)


def test_a_start_counts_by_the_number_of_starts_in_progress_at_its_placement(world: World) -> None:
    host = world.add_host(slots=9)
    sandboxes = [start(world) for _ in range(3)]
    for sandbox in reversed(sandboxes):
        world.clock.advance(1)
        inbox.visit(world.deps, sandbox.id, "")
    assert curve(world, host) == (3.0, 2.0, 1.0)


def test_a_sandbox_for_a_session_counts_too(world: World) -> None:
    host = world.add_host()
    session = world.create_session()
    world.converge(session)
    world.clock.advance(0.5)
    inbox.visit(world.deps, world.sandbox_of(session).id, "")
    assert curve(world, host) == (0.5, None, None)


def test_later_visits_do_not_count(world: World) -> None:
    host = world.add_host()
    sandbox = start(world)
    world.clock.advance(0.5)
    inbox.visit(world.deps, sandbox.id, "")
    for _ in range(5):  # the proxy doesn't answer, so the sandbox isn't warm yet
        world.clock.advance(12)
        inbox.visit(world.deps, sandbox.id, "")
    world.publish()
    for _ in range(5):
        world.clock.advance(12)
        inbox.visit(world.deps, sandbox.id, "")
    assert curve(world, host) == (0.5, None, None)


def test_only_the_first_visit_counts_even_if_the_sandbox_gets_warm_long_after_it(
    world: World,
) -> None:
    host = world.add_host()
    sandbox = start(world)
    world.clock.advance(0.5)
    inbox.visit(world.deps, sandbox.id, "")
    world.clock.advance(60)
    world.publish()
    assert world.sandbox(sandbox.id).state is SandboxState.WARM
    world.clock.advance(0.1)
    inbox.visit(world.deps, sandbox.id, "")
    assert curve(world, host) == (0.5, None, None)


def test_a_host_that_slows_down_under_parallel_starts_gets_fewer_at_once(world: World) -> None:
    host = world.add_host(slots=90)
    for _ in range(6):
        sandboxes = [start(world) for _ in range(world.store.hosts.get(host.id).starts.at_once)]
        world.publish()
        for number, sandbox in enumerate(sandboxes):
            world.clock.advance(0.5 if number == 0 else 3)
            inbox.visit(world.deps, sandbox.id, "")
    assert world.store.hosts.get(host.id).starts.at_once == 1
