"""The host that a session is placed on: refusals, wishes, and the order of waiting."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.host import Drain, Host, HostState, Wish
from orchestrator.domain.sessions.session import Session, SessionState
from orchestrator.services.sessions import due
from tests.fakes.engine import EngineInMemory, EngineThatRefuses
from tests.unit.services.world import World


def add_host(world: World, engine: EngineInMemory, **changes: object) -> Host:
    """A host with an engine and an address of its own."""
    number = len(world.store.hosts.list()) + 1
    added = world.add_host(publish_address=f"10.0.0.{number}", **changes)
    world.engines.special[added.id] = engine
    return added


def try_again(world: World, session: Session) -> tuple[str, ...]:
    """Wait until the session is due, converge it, and start its sandbox if it gets one."""
    world.publish()
    world.clear()
    world.clock.jump_to(world.session(session).due_at)
    steps = world.converge(session).steps
    world.start_placed()
    return steps


# Refusals


@pytest.mark.parametrize("code", ["create_failed", "port_taken", "disk_full", "image_missing"])
def test_a_session_refused_by_one_host_is_tried_on_another_and_no_attempt_counts(
    world: World, code: str
) -> None:
    bad = add_host(world, EngineThatRefuses(code), slots=9)
    good = add_host(world, EngineInMemory(), slots=2)
    session = world.create_session()
    assert try_again(world, session) == ("Claim",)
    current = world.session(session)
    assert current.failure is not None
    assert (current.failure.code, current.failure.counts_as_attempt) == (code, False)
    assert current.refused_by == (bad.id,)

    assert try_again(world, session) == ("Abandon", "Requeue", "Claim")
    current = world.session(session)
    assert (current.attempt, current.failure) == (1, None)
    assert world.host_of(session).id == good.id
    assert world.history(session) == "queued provisioning queued provisioning"


def test_a_refusal_by_all_hosts_counts_as_an_attempt_and_all_may_be_asked_again(
    world: World,
) -> None:
    for slots in (9, 5):
        add_host(world, EngineThatRefuses(times=1), slots=slots)
    session = world.create_session()
    try_again(world, session)
    assert try_again(world, session)[-1:] == ("Claim",)
    current = world.session(session)
    assert current.failure is not None
    assert (current.failure.counts_as_attempt, current.refused_by) == (True, ())
    assert try_again(world, session) == ("Abandon", "Requeue", "Wait")
    assert world.session(session).attempt == 2
    assert try_again(world, session) == ("Claim",)
    assert world.session(session).failure is None


@pytest.mark.parametrize("code", ["image_missing", "network_missing", "disk_full"])
def test_what_the_only_host_lacks_costs_the_session_no_attempt(world: World, code: str) -> None:
    """The host has to be admitted or measured again first."""
    add_host(world, EngineThatRefuses(code, times=1), slots=9)
    session = world.create_session()
    try_again(world, session)
    current = world.session(session)
    assert current.failure is not None
    assert (current.failure.counts_as_attempt, current.refused_by) == (False, ())


def test_three_rounds_of_refusals_fail_the_session_with_what_docker_said(world: World) -> None:
    for _ in range(2):
        add_host(world, EngineThatRefuses(), slots=9)
    session = world.create_session()
    for _ in range(20):
        try_again(world, session)
    current = world.session(session)
    assert (current.state, current.attempt) == (SessionState.FAILED, 3)
    assert current.failure is not None
    assert current.failure.message == "Docker refused: create_failed"
    assert world.sandboxes() == []


@pytest.mark.parametrize(
    ("code", "state", "shortage"),
    [
        ("image_missing", HostState.SUSPECT, ""),
        ("network_missing", HostState.SUSPECT, ""),
        ("disk_full", HostState.UP, "its disk is full"),
        ("create_failed", HostState.UP, ""),
    ],
)
def test_a_refusal_that_concerns_the_host_keeps_the_next_session_away(
    world: World, code: str, state: HostState, shortage: str
) -> None:
    bad = add_host(world, EngineThatRefuses(code), slots=9)
    world.converge(world.create_session())
    world.start_placed()
    after = world.store.hosts.get(bad.id)
    assert (after.state, after.shortage) == (state, shortage)


def test_a_refused_session_waits_for_a_host_that_is_only_full(world: World) -> None:
    bad = add_host(world, EngineThatRefuses(), slots=9)
    other = add_host(world, EngineInMemory(), slots=0)
    session = world.create_session()
    try_again(world, session)
    assert try_again(world, session) == ("Abandon", "Requeue", "Claim")
    current = world.session(session)
    assert (current.state, current.refused_by) == (SessionState.QUEUED, (bad.id,))
    world.store.hosts.change(other.id, lambda host: replace(host, slots=1))
    assert try_again(world, session) == ("Claim",)
    assert world.host_of(session).id == other.id


def test_a_refused_session_asks_the_same_host_again_if_no_other_is_open(world: World) -> None:
    bad = add_host(world, EngineThatRefuses(times=1), slots=9)
    other = add_host(world, EngineInMemory(), slots=1)
    session = world.create_session()
    try_again(world, session)
    world.store.hosts.put(world.add_host(id=other.id, name=other.name, cordoned=True))
    steps = try_again(world, session)
    assert steps == ("Abandon", "Requeue", "Claim", "Claim")
    current = world.session(session)
    assert (current.attempt, current.refused_by) == (1, ())
    assert world.host_of(session).id == bad.id


def test_the_next_attempt_after_another_failure_forgets_the_refusals(world: World) -> None:
    add_host(world, EngineThatRefuses(times=1), slots=9)
    add_host(world, EngineInMemory(), slots=2)
    session = world.create_session()
    try_again(world, session)
    try_again(world, session)
    assert world.session(session).refused_by
    world.settle(session, rounds=1)
    world.report_failure(session, permanent=False)
    world.converge(session)
    try_again(world, session)
    assert (world.session(session).attempt, world.session(session).refused_by) == (2, ())


# Wishes


def test_a_wish_that_no_host_could_meet_is_refused_at_once(world: World) -> None:
    world.add_host(region="eu", labels={"gpu": "yes"})
    with pytest.raises(errors.Conflict, match="no host of the pool has region us") as caught:
        world.create_session(wish=Wish(region="us"))
    assert caught.value.code == "placement_unknown"
    assert caught.value.detail == {"field": "region", "regions": ["eu"]}
    with pytest.raises(errors.Conflict, match="gpu=no") as caught:
        world.create_session(wish=Wish(labels={"gpu": "no"}))
    assert caught.value.detail["field"] == "labels"
    assert world.store.sessions.list() == []


@pytest.mark.parametrize("changes", [{"state": HostState.LOST}, {"cordoned": True}, {"slots": 0}])
def test_a_session_waits_for_a_host_that_meets_its_wish_and_is_not_available(
    world: World, changes: dict[str, object]
) -> None:
    matching = world.add_host(region="eu", **changes)
    world.add_host(publish_address="10.0.0.2")
    session = world.create_session(wish=Wish(region="eu"))
    world.converge(session)
    assert world.state(session) is SessionState.QUEUED
    world.add_host(id=matching.id, name=matching.name, region="eu")
    world.clock.jump_to(world.session(session).due_at)
    world.converge(session)
    assert world.host_of(session).id == matching.id


def test_a_session_whose_wish_the_pool_can_no_longer_meet_fails(world: World) -> None:
    matching = world.add_host(region="eu", labels={"gpu": "yes"}, slots=0)
    world.add_host(publish_address="10.0.0.2")
    session = world.create_session(wish=Wish(region="eu", labels={"gpu": "yes"}))
    world.converge(session)
    world.store.hosts.remove(matching.id)
    world.queue.nudges.clear()
    due.nudge_due_sessions(world.deps)
    assert world.queue.nudged == [session.id]
    world.converge(session)
    failure = world.session(session).failure
    assert world.state(session) is SessionState.FAILED
    assert failure is not None
    assert failure.code == "placement_unknown"
    assert "region eu, gpu=yes" in failure.message


def test_a_session_with_a_wish_keeps_its_place_in_the_queue(world: World) -> None:
    matching = world.add_host(region="eu", slots=0)
    wishing = world.create_session(wish=Wish(region="eu"))
    world.converge(wishing)
    later = world.create_session()
    world.add_host(id=matching.id, name=matching.name, region="eu", slots=1)
    world.converge(later)
    assert world.state(later) is SessionState.QUEUED, "the earlier session has its turn first"
    world.converge(wishing)
    assert world.host_of(wishing).id == matching.id


def test_a_wish_holds_for_the_next_attempt_and_for_recovery(world: World) -> None:
    first = world.add_host(region="eu", slots=9)
    ready = world.run_session(world.create_session(wish=Wish(region="eu")))
    world.add_host(publish_address="10.0.0.2", slots=99)
    second = world.add_host(region="eu", slots=2, publish_address="10.0.0.3")
    world.lose_host(first)
    world.settle(ready, rounds=3)
    assert world.host_of(ready).id == second.id


def test_the_same_request_with_another_wish_is_another_request(world: World) -> None:
    world.add_host(region="eu", labels={"gpu": "yes"})
    session = world.create_session(idempotency_key="k", wish=Wish(region="eu"))
    assert world.create_session(idempotency_key="k", wish=Wish(region="eu")).id == session.id
    for wish in (Wish(), Wish(labels={"gpu": "yes"})):
        with pytest.raises(errors.Conflict):
            world.create_session(idempotency_key="k", wish=wish)


@pytest.mark.parametrize("drain", [Drain.WAIT, Drain.MOVE])
def test_a_queued_session_is_never_placed_on_a_draining_host(world: World, drain: Drain) -> None:
    world.add_host(drain=drain)
    session = world.create_session()
    world.converge(session)
    assert world.state(session) is SessionState.QUEUED
