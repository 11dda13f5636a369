"""Which host a session comes to: refusals, wishes, and who waits for whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.host import Drain, Host, HostState, Wish
from orchestrator.domain.sessions.session import Session, SessionState
from orchestrator.services.sessions import due
from tests.fakes.engine import EngineInMemory, EngineThatRefuses
from tests.unit.services.world import World


def host(world: World, engine: EngineInMemory, **changes: object) -> Host:
    """A host with an engine and an address of its own."""
    number = len(world.store.hosts.list()) + 1
    made = world.host(publish_address=f"10.0.0.{number}", **changes)
    world.engines.special[made.id] = engine
    return made


def try_again(world: World, session: Session) -> tuple[str, ...]:
    """The withdrawal is confirmed, the pause is over."""
    world.publish()
    world.clock.jump_to(world.session(session).due_at)
    return world.converge(session).steps


# Refusals


@pytest.mark.parametrize("code", ["create_failed", "port_taken", "disk_full", "image_missing"])
def test_a_refusal_on_one_host_is_tried_on_another_and_burns_no_attempt(
    world: World, code: str
) -> None:
    bad = host(world, EngineThatRefuses(code), slots=9)
    good = host(world, EngineInMemory(), slots=2)
    session = world.ask()
    assert world.converge(session).steps == ("Claim", "Start", "Retire", "Rest")
    found = world.session(session)
    assert found.failure is not None
    assert (found.failure.code, found.failure.burns) == (code, False)
    assert found.refused_by == (bad.id,)

    assert try_again(world, session) == ("Remove", "Requeue", "Claim", "Start", "Rest")
    found = world.session(session)
    assert (found.attempt, found.failure) == (1, None)
    assert world.host_of(session).id == good.id
    assert world.story(session) == "queued provisioning queued provisioning"


def test_a_refusal_by_all_hosts_burns_an_attempt_and_all_may_be_asked_again(
    world: World,
) -> None:
    for slots in (9, 5):
        host(world, EngineThatRefuses(times=1), slots=slots)
    session = world.ask()
    world.converge(session)
    assert try_again(world, session)[-4:] == ("Claim", "Start", "Retire", "Rest")
    found = world.session(session)
    assert found.failure is not None
    assert (found.failure.burns, found.refused_by) == (True, ())
    assert try_again(world, session) == ("Remove", "Requeue", "Rest")
    assert world.session(session).attempt == 2
    assert try_again(world, session) == ("Claim", "Start", "Rest")


def test_three_rounds_of_refusals_fail_the_session_with_what_docker_said(world: World) -> None:
    for _ in range(2):
        host(world, EngineThatRefuses(), slots=9)
    session = world.ask()
    for _ in range(20):
        try_again(world, session)
    found = world.session(session)
    assert (found.state, found.attempt) == (SessionState.FAILED, 3)
    assert found.failure is not None
    assert found.failure.message == "Docker refused: create_failed"
    assert world.boxes() == []


@pytest.mark.parametrize(
    ("code", "state", "shortage"),
    [
        ("image_missing", HostState.SUSPECT, ""),
        ("disk_full", HostState.UP, "its disk is full"),
        ("create_failed", HostState.UP, ""),
    ],
)
def test_what_a_refusal_says_of_the_host_keeps_the_next_session_away(
    world: World, code: str, state: HostState, shortage: str
) -> None:
    bad = host(world, EngineThatRefuses(code), slots=9)
    world.converge(world.ask())
    after = world.store.hosts.get(bad.id)
    assert (after.state, after.shortage) == (state, shortage)


def test_who_was_refused_waits_for_a_host_that_is_only_full(world: World) -> None:
    bad = host(world, EngineThatRefuses(), slots=9)
    other = host(world, EngineInMemory(), slots=0)
    session = world.ask()
    world.converge(session)
    assert try_again(world, session) == ("Remove", "Requeue", "Claim")
    found = world.session(session)
    assert (found.state, found.refused_by) == (SessionState.QUEUED, (bad.id,))
    world.store.hosts.change(other.id, lambda full: replace(full, slots=1))
    assert world.converge(session).steps == ("Claim", "Start", "Rest")
    assert world.host_of(session).id == other.id


def test_who_was_refused_asks_again_when_nobody_else_is_open(world: World) -> None:
    bad = host(world, EngineThatRefuses(times=1), slots=9)
    other = host(world, EngineInMemory(), slots=1)
    session = world.ask()
    world.converge(session)
    world.store.hosts.put(world.host(id=other.id, name=other.name, cordoned=True))
    steps = try_again(world, session)
    assert steps == ("Remove", "Requeue", "Claim", "Claim", "Start", "Rest")
    found = world.session(session)
    assert (found.attempt, found.refused_by) == (1, ())
    assert world.host_of(session).id == bad.id


def test_the_next_attempt_of_another_failure_forgets_who_refused(world: World) -> None:
    host(world, EngineThatRefuses(times=1), slots=9)
    host(world, EngineInMemory(), slots=2)
    session = world.ask()
    world.converge(session)
    try_again(world, session)
    assert world.session(session).refused_by
    world.settle(session, rounds=1)
    world.give_up(session, permanent=False)
    world.converge(session)
    try_again(world, session)
    assert (world.session(session).attempt, world.session(session).refused_by) == (2, ())


# Wishes


def test_a_wish_that_no_host_could_meet_is_refused_at_once(world: World) -> None:
    world.host(region="eu", labels={"gpu": "yes"})
    with pytest.raises(errors.InvalidInput, match="no host of the pool has region us") as caught:
        world.ask(wish=Wish(region="us"))
    assert caught.value.code == "placement_unknown"
    assert caught.value.detail == {"field": "region", "regions": ["eu"]}
    with pytest.raises(errors.InvalidInput, match="gpu=no") as caught:
        world.ask(wish=Wish(labels={"gpu": "no"}))
    assert caught.value.detail["field"] == "labels"
    assert world.store.sessions.list() == []


@pytest.mark.parametrize("changes", [{"state": HostState.LOST}, {"cordoned": True}, {"slots": 0}])
def test_a_wish_that_only_a_host_that_is_away_meets_waits_for_it(
    world: World, changes: dict[str, object]
) -> None:
    there = world.host(region="eu", **changes)
    world.host(publish_address="10.0.0.2")
    session = world.ask(wish=Wish(region="eu"))
    world.converge(session)
    assert world.state(session) is SessionState.QUEUED
    world.host(id=there.id, name=there.name, region="eu")
    world.clock.jump_to(world.session(session).due_at)
    world.converge(session)
    assert world.host_of(session).id == there.id


def test_a_wish_that_the_pool_can_no_longer_meet_is_an_honest_failure(world: World) -> None:
    there = world.host(region="eu", labels={"gpu": "yes"}, slots=0)
    world.host(publish_address="10.0.0.2")
    session = world.ask(wish=Wish(region="eu", labels={"gpu": "yes"}))
    world.converge(session)
    world.store.hosts.remove(there.id)
    world.clock.jump_to(world.session(session).due_at)
    world.converge(session)
    failure = world.session(session).failure
    assert world.state(session) is SessionState.FAILED
    assert failure is not None
    assert failure.code == "placement_unknown"
    assert "region eu, gpu=yes" in failure.message


def test_who_asks_for_special_hosts_steps_aside_for_who_does_not(world: World) -> None:
    world.host(region="eu", slots=0)
    world.host(publish_address="10.0.0.2", slots=1)
    wishing = world.ask(wish=Wish(region="eu"))
    other = world.ask()
    world.converge(other)
    assert world.state(other) is SessionState.QUEUED, "the earlier one has not been looked at"
    world.converge(wishing)
    assert world.session(wishing).due_at > world.clock.now()
    assert due.nudge_due(world.deps) == 1
    assert world.queue.nudged[-1] == other.id
    world.converge(other)
    assert world.state(other) is SessionState.PROVISIONING
    assert world.session(wishing).attempt == 1


def test_who_stepped_aside_comes_back_to_its_place(world: World) -> None:
    there = world.host(region="eu", slots=0)
    wishing = world.ask(wish=Wish(region="eu"))
    world.converge(wishing)
    later = world.ask()
    world.clock.jump_to(world.session(wishing).due_at)
    world.host(id=there.id, name=there.name, region="eu", slots=1)
    world.converge(later)
    assert world.state(later) is SessionState.QUEUED, "it is the turn of the one before"
    world.converge(wishing)
    assert world.host_of(wishing).id == there.id


def test_a_wish_holds_for_the_next_attempt_and_for_recovery(world: World) -> None:
    first = world.host(region="eu", slots=9)
    ready = world.run(world.ask(wish=Wish(region="eu")))
    world.host(publish_address="10.0.0.2", slots=99)
    second = world.host(region="eu", slots=2, publish_address="10.0.0.3")
    world.lose(first)
    world.settle(ready, rounds=3)
    assert world.host_of(ready).id == second.id


def test_the_same_request_with_another_wish_is_another_request(world: World) -> None:
    world.host(region="eu", labels={"gpu": "yes"})
    made = world.ask(idempotency_key="k", wish=Wish(region="eu"))
    assert world.ask(idempotency_key="k", wish=Wish(region="eu")).id == made.id
    for wish in (Wish(), Wish(labels={"gpu": "yes"})):
        with pytest.raises(errors.Conflict):
            world.ask(idempotency_key="k", wish=wish)


@pytest.mark.parametrize("drain", [Drain.WAIT, Drain.MOVE])
def test_what_is_queued_never_comes_to_a_host_that_is_being_emptied(
    world: World, drain: Drain
) -> None:
    world.host(drain=drain)
    session = world.ask()
    world.converge(session)
    assert world.state(session) is SessionState.QUEUED
