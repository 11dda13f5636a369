"""Drained hosts: who moves, how many at once, and who holds up nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.domain.pool.host import Drain, Host, Wish
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.services.pool import drains, hosts
from tests.unit.services.world import OPERATOR, World

EU = Wish(region="eu")


def test_warm_sandboxes_of_a_drained_host_go_and_sessions_end_by_themselves(world: World) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    warm = world.add_warm_sandbox()
    drained = hosts.drain(world.deps, OPERATOR, host.name, Drain.WAIT)
    world.queue.nudges.clear()
    assert drains.continue_drain(world.deps, drained) == 1
    assert world.sandbox(warm.id).state is SandboxState.STOPPING
    assert drains.continue_drain(world.deps, drained) == 0
    assert world.queue.nudged == []
    assert world.session(ready) == ready


def test_running_sessions_of_a_drained_host_are_woken_a_few_at_a_time(world: World) -> None:
    world.add_host(slots=20)
    ready = [world.run_session(world.create_session(principal)) for principal in operators(8)]
    host = world.store.hosts.list()[0]
    world.add_host(publish_address="10.0.0.2", slots=9)
    drained = hosts.drain(world.deps, OPERATOR, host.name, Drain.MOVE)
    world.queue.nudges.clear()
    assert drains.continue_drain(world.deps, drained) == 6
    assert world.queue.nudged == [session.id for session in ready[:6]]
    for session in ready[:6]:
        assert world.session(session).due_at <= world.clock.now()
    world.queue.nudges.clear()
    assert drains.continue_drain(world.deps, drained) == 0, "none of them has begun to move yet"


def test_sessions_that_can_not_move_yet_do_not_delay_those_that_can(world: World) -> None:
    host = world.add_host(slots=20)
    other = world.add_host(publish_address="10.0.0.2", cordoned=True)
    for principal in operators(6):
        world.add_warm_sandbox()
        world.converge(world.create_session(principal))  # PROVISIONING
    ready = world.run_session(world.create_session(OPERATOR))
    world.store.hosts.change(other.id, lambda host: replace(host, cordoned=False))
    drained = drain(world, host)
    world.queue.nudges.clear()
    drains.continue_drain(world.deps, drained)
    assert world.queue.nudged == [ready.id]


def test_an_app_without_a_bundle_stays_where_it_is(world: World) -> None:
    """It can't start anywhere else, so it is not woken again and again."""
    host = world.add_host()
    ready = world.run_session(
        world.create_session(prompt="a tide calendar for Brest", template=None)
    )
    assert ready.bundle is None
    drained = drain(world, host)
    assert drains.continue_drain(world.deps, drained) == 0
    assert world.converge(ready).steps == ("Wait",)


def test_sessions_that_have_nowhere_to_go_do_not_delay_those_that_have(world: World) -> None:
    host = world.add_host(region="eu", slots=20)
    stuck = [
        world.run_session(world.create_session(principal, wish=EU)) for principal in operators(9)
    ]
    others = [world.run_session(world.create_session(principal)) for principal in operators(2)]
    us = world.add_host(publish_address="10.0.0.2", region="us", slots=20)
    drained = drain(world, host)
    world.queue.nudges.clear()
    for _ in range(3):
        drains.continue_drain(world.deps, drained)
    assert world.queue.nudged == [session.id for session in others]

    for session in others:
        world.converge(session)
    assert {world.session(session).move is None for session in others} == {False}
    world.queue.nudges.clear()
    world.store.hosts.change(us.id, lambda host: replace(host, region="eu"))
    drains.continue_drain(world.deps, drained)
    assert world.queue.nudged == [session.id for session in stuck[:4]], "six at once, in order"


def test_a_session_that_found_no_room_rests_until_there_is_some(world: World) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    other = world.add_host(publish_address="10.0.0.2", slots=1)
    drained = drain(world, host)
    assert drains.continue_drain(world.deps, drained) == 1
    world.store.hosts.change(other.id, lambda host: replace(host, slots=0))
    assert world.converge(ready).steps == ("Relocate",)
    assert drains.continue_drain(world.deps, drained) == 0
    world.store.hosts.change(other.id, lambda host: replace(host, slots=1))
    assert drains.continue_drain(world.deps, drained) == 1
    world.converge(ready)
    assert world.session(ready).move is not None


def test_operators_read_why_an_app_does_not_move(world: World) -> None:
    host = world.add_host(region="eu", slots=20)
    wishing = world.run_session(world.create_session(OPERATOR, wish=EU))
    first, second = (
        world.run_session(world.create_session(principal)) for principal in operators(2)
    )
    bare = world.run_session(
        world.create_session(prompt="a tide calendar for Brest", template=None)
    )
    sandboxes = world.sandboxes()
    assert drains.reasons_to_stay(world.deps, host, sandboxes) == {}, "nobody asked it to move"
    world.add_host(publish_address="10.0.0.2", slots=1)
    drained = drain(world, host)
    assert drains.reasons_to_stay(world.deps, drained, sandboxes) == {
        wishing.sandbox_id: "can't move: no other host with region eu takes sandboxes now",
        second.sandbox_id: "waits to move: no other host has room now",
        bare.sandbox_id: "can't move: it has no version that could start elsewhere",
    }
    assert first.sandbox_id is not None


def drain(world: World, host: Host) -> Host:
    return world.store.hosts.change(host.id, lambda host: replace(host, drain=Drain.MOVE))


def operators(count: int) -> list[Any]:
    """Enough users for many sessions."""
    return [replace(OPERATOR, user_id=f"usr_{number:026}") for number in range(count)]
