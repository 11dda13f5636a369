"""Extending and ending sessions, also when both happen at the same time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.people.access import HOUR_S, Principal
from orchestrator.domain.sessions.priority import Queue
from orchestrator.domain.sessions.session import SessionState, Tier, Wanted
from orchestrator.services.sessions import requests
from tests.fakes.samples import later
from tests.unit.services.world import OPERATOR, VISITOR, RaceToWrite, World

STRANGER = Principal(user_id=ids.UserId("usr_" + "s" * 26), tier=Tier.FREE)


# Extending


def test_an_extension_counts_from_now(world: World) -> None:
    session = world.create_session()
    world.clock.advance(100)
    extended = requests.extend(world.deps, VISITOR, session.id, HOUR_S)
    assert extended.expires_at == later(HOUR_S, world.clock.now())
    assert f"session:{session.id}" in world.events.sent


def test_an_extension_that_came_first_beats_the_expiry(world: World) -> None:
    session = world.create_session(ttl_s=60)
    world.clock.advance(61)
    requests.extend(world.deps, VISITOR, session.id, HOUR_S)
    assert world.store.sessions.expire(world.clock.now(), 10) == []
    assert world.session(session).wanted is Wanted.RUNNING


def test_an_expiry_that_came_first_is_never_taken_back(world: World) -> None:
    session = world.create_session(ttl_s=60)
    world.clock.advance(61)
    assert len(world.store.sessions.expire(world.clock.now(), 10)) == 1
    with pytest.raises(errors.Conflict) as caught:
        requests.extend(world.deps, VISITOR, session.id, HOUR_S)
    assert caught.value.code == "session_ending"


def test_an_ended_session_is_not_extended(world: World) -> None:
    session = world.create_session()
    world.request_end(session)
    world.converge(session)
    with pytest.raises(errors.Conflict):
        requests.extend(world.deps, VISITOR, session.id, HOUR_S)


def test_an_extension_never_delays_a_recovery_that_is_due(world: World) -> None:
    world.add_host()
    ready = world.run_session(world.create_session())
    due_session = world.save(ready, due_at=world.clock.now())  # as a diagnosis does
    requests.extend(world.deps, VISITOR, ready.id, 2 * HOUR_S)
    assert world.session(ready).due_at == due_session.due_at


def test_a_running_app_that_was_extended_is_left_alone_until_its_new_end(world: World) -> None:
    world.add_host()
    ready = world.run_session(world.create_session(ttl_s=600))
    requests.extend(world.deps, VISITOR, ready.id, 2 * HOUR_S)
    world.clock.advance(700)
    world.converge(ready)
    session = world.session(ready)
    assert session.state is SessionState.READY
    assert session.due_at == session.expires_at


@pytest.mark.parametrize(
    ("ttl_s", "error"),
    [
        (59, errors.InvalidInput),
        (24 * HOUR_S + 1, errors.Forbidden),
        (10**9, errors.InvalidInput),
    ],
)
def test_an_extension_has_the_limits_of_the_tier(
    world: World, ttl_s: int, error: type[errors.SpawnError]
) -> None:
    session = world.create_session()
    with pytest.raises(error):
        requests.extend(world.deps, VISITOR, session.id, ttl_s)
    assert world.session(session) == session


# Ending


def test_an_end_is_saved_and_nudged(world: World) -> None:
    session = world.create_session()
    world.queue.nudges.clear()
    ended = requests.end(world.deps, VISITOR, session.id)
    assert (ended.wanted, ended.due_at) == (Wanted.GONE, world.clock.now())
    assert ended.state is SessionState.QUEUED, "only converge moves a session"
    assert world.queue.nudges == [(session.id, Queue.CRITICAL)]
    assert world.store.audit.list() == []


def test_ending_a_session_twice_or_after_its_end_is_no_error(world: World) -> None:
    session = world.create_session()
    first = requests.end(world.deps, VISITOR, session.id)
    assert requests.end(world.deps, VISITOR, session.id) == first
    world.converge(session)
    world.queue.nudges.clear()
    assert requests.end(world.deps, VISITOR, session.id).state is SessionState.DESTROYED
    assert world.queue.nudges == []


def test_an_operator_who_ends_somebody_elses_session_is_audited(world: World) -> None:
    session = world.create_session()
    requests.end(world.deps, OPERATOR, session.id)
    (entry,) = world.store.audit.list()
    assert (entry.actor, entry.action, entry.subject) == (
        OPERATOR.user_id,
        "session_killed",
        session.id,
    )


def extend(world: World, session_id: str) -> object:
    return requests.extend(world.deps, VISITOR, session_id, HOUR_S).expires_at


def end(world: World, session_id: str) -> object:
    return requests.end(world.deps, VISITOR, session_id).wanted


@pytest.mark.parametrize(
    ("change", "wanted"),
    [(extend, Wanted.RUNNING), (end, Wanted.GONE)],
)
def test_a_request_that_loses_a_race_is_still_saved(
    world: World, change: Callable[[World, str], object], wanted: Wanted
) -> None:
    session = world.create_session()
    world.store = RaceToWrite(world.store, times=3)
    result = change(world, session.id)
    assert result in {world.session(session).expires_at, world.session(session).wanted}
    assert world.session(session).wanted is wanted
    assert world.session(session).revision == session.revision + 4


def test_a_stranger_changes_nothing(world: World) -> None:
    session = world.create_session()
    with pytest.raises(errors.NotFound):
        requests.extend(world.deps, STRANGER, session.id, HOUR_S)
    with pytest.raises(errors.NotFound):
        requests.end(world.deps, STRANGER, session.id)
    assert world.session(session) == session
