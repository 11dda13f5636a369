"""Sessions whose wish can't be met now hold up nobody whom other hosts have room for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.people.access import Principal
from orchestrator.domain.pool.host import Host, HostState, Wish
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import Session, SessionState, Tier
from orchestrator.services.pool import refill
from orchestrator.services.sessions import due, requests
from tests.fakes.samples import later
from tests.unit.services.world import World

EU = Wish(region="eu")


def visitor() -> Principal:
    return Principal(user_id=ids.new_user_id(), tier=Tier.FREE)


def wishing(world: World, count: int) -> list[Session]:
    return [world.create_session(visitor(), wish=EU) for _ in range(count)]


def add_two_hosts(world: World, slots: int, **changes: object) -> tuple[Host, Host]:
    """One in eu, with these changes, and one in us."""
    eu = world.add_host(region="eu", **{"slots": 0, **changes})
    return eu, world.add_host(publish_address="10.0.0.2", region="us", slots=slots)


@pytest.mark.parametrize("state", [HostState.UP, HostState.LOST])
def test_nobody_waits_behind_those_whose_hosts_are_full_or_away(
    world: World, state: HostState
) -> None:
    add_two_hosts(world, 3, state=state)
    wishers = wishing(world, 120)
    for session in wishers[:3]:
        world.converge(session)
    newcomer = world.create_session(visitor())
    assert requests.queue_position(world.deps, newcomer) == 1
    assert requests.queue_position(world.deps, wishers[-1]) == 120
    world.queue.nudges.clear()
    assert due.nudge_due_sessions(world.deps).nudged == 1
    assert world.queue.nudged == [newcomer.id], "nobody looks at the others in vain"
    world.converge(newcomer)
    assert world.state(newcomer) is SessionState.PROVISIONING
    world.create_session(visitor())
    assert refill.measure_level(world.deps).waiting == 1


def test_those_who_wait_for_a_host_get_it_in_order_and_before_newcomers(world: World) -> None:
    eu, us = add_two_hosts(world, 1)
    first, second = wishing(world, 2)
    for session in (first, second):
        world.converge(session)
    world.store.hosts.change(eu.id, lambda host: replace(host, slots=1))
    newcomers = [world.create_session(visitor()) for _ in range(2)]
    world.queue.nudges.clear()
    due.nudge_due_sessions(world.deps)
    assert world.queue.nudged == [first.id, newcomers[0].id]
    for session in (*newcomers, second):
        world.converge(session)
    assert world.host_of(newcomers[0]).id == us.id
    assert world.state(newcomers[1]) is SessionState.QUEUED
    assert world.state(second) is SessionState.QUEUED
    world.converge(first)
    assert world.host_of(first).id == eu.id


def test_a_newcomer_leaves_the_warm_sandbox_that_an_earlier_session_needs(world: World) -> None:
    eu = world.add_host(region="eu", slots=1)
    warm = world.add_warm_sandbox()
    us = world.add_host(publish_address="10.0.0.2", region="us", slots=9)
    (first,) = wishing(world, 1)
    newcomer = world.create_session(visitor())
    world.converge(newcomer)
    assert world.host_of(newcomer).id == us.id
    world.converge(first)
    assert (world.sandbox_of(first).id, warm.host_id) == (warm.id, eu.id)


def test_apps_of_a_lost_host_wait_for_it_and_newcomers_go_on(world: World) -> None:
    eu = world.add_host(region="eu", slots=4)
    apps = [world.run_session(session) for session in wishing(world, 4)]
    world.add_host(publish_address="10.0.0.2", region="us", slots=2)
    world.lose_host(eu)
    for session in apps:
        world.converge(session)
        assert world.state(session) is SessionState.QUEUED
    newcomer = world.create_session(visitor())
    world.converge(newcomer)
    assert world.state(newcomer) is SessionState.PROVISIONING


def test_apps_that_get_no_warm_sandbox_leave_those_to_others(world: World) -> None:
    world.add_host(slots=1)
    world.add_warm_sandbox()
    crashing = world.create_session(visitor())
    world.save(crashing, version=1, crashes=tuple(later(-each) for each in range(5)))
    newcomer = world.create_session(visitor())
    world.converge(newcomer)
    assert world.sandbox_of(newcomer).state is SandboxState.CLAIMED


def test_the_queue_of_one_region_gets_full_for_that_region_only(world: World) -> None:
    world.policy = replace(world.policy, queue_max=3)
    add_two_hosts(world, 1)
    wishing(world, 3)
    with pytest.raises(errors.NoCapacity):
        wishing(world, 1)
    world.create_session(visitor())
