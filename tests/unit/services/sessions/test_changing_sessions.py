"""Extending and ending sessions: intents, and who wins when they meet."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.people.access import HOUR_S, Principal, Queue
from orchestrator.domain.sessions.session import SessionState, Tier, Wanted
from orchestrator.services.sessions import requests
from tests.fakes.samples import later
from tests.unit.services.world import OPERATOR, VISITOR, RaceToWrite, World

STRANGER = Principal(user_id=ids.UserId("usr_" + "s" * 26), tier=Tier.FREE)


# Extending


def test_an_extension_counts_from_now(world: World) -> None:
    made = world.ask()
    world.clock.advance(100)
    extended = requests.extend(world.deps, VISITOR, made.id, HOUR_S)
    assert extended.expires_at == later(HOUR_S, world.clock.now())
    assert f"session:{made.id}" in world.events.sent


def test_an_extension_that_came_first_beats_the_expiry(world: World) -> None:
    made = world.ask(ttl_s=60)
    world.clock.advance(61)
    requests.extend(world.deps, VISITOR, made.id, HOUR_S)
    assert world.store.sessions.expire(world.clock.now(), 10) == []
    assert world.session(made).wanted is Wanted.RUNNING


def test_an_expiry_that_came_first_is_never_taken_back(world: World) -> None:
    made = world.ask(ttl_s=60)
    world.clock.advance(61)
    assert len(world.store.sessions.expire(world.clock.now(), 10)) == 1
    with pytest.raises(errors.Conflict) as caught:
        requests.extend(world.deps, VISITOR, made.id, HOUR_S)
    assert caught.value.code == "session_ending"


def test_what_has_ended_is_not_extended(world: World) -> None:
    made = world.ask()
    world.want_gone(made)
    world.converge(made)
    with pytest.raises(errors.Conflict):
        requests.extend(world.deps, VISITOR, made.id, HOUR_S)


def test_an_extension_never_puts_off_a_recovery_that_is_due(world: World) -> None:
    world.host()
    ready = world.run(world.ask())
    due = world.save(ready, due_at=world.clock.now())  # as a diagnosis does
    requests.extend(world.deps, VISITOR, ready.id, 2 * HOUR_S)
    assert world.session(ready).due_at == due.due_at


def test_a_running_app_that_was_extended_is_left_alone_until_its_new_end(world: World) -> None:
    world.host()
    ready = world.run(world.ask(ttl_s=600))
    requests.extend(world.deps, VISITOR, ready.id, 2 * HOUR_S)
    world.clock.advance(700)
    world.converge(ready)
    found = world.session(ready)
    assert found.state is SessionState.READY
    assert found.due_at == found.expires_at


@pytest.mark.parametrize("ttl_s", [59, 24 * HOUR_S + 1])
def test_an_extension_has_the_limits_of_the_tier(world: World, ttl_s: int) -> None:
    made = world.ask()
    with pytest.raises(errors.InvalidInput):
        requests.extend(world.deps, VISITOR, made.id, ttl_s)
    assert world.session(made) == made


# Ending


def test_an_end_is_written_and_looked_at(world: World) -> None:
    made = world.ask()
    world.queue.nudges.clear()
    ended = requests.end(world.deps, VISITOR, made.id)
    assert (ended.wanted, ended.due_at) == (Wanted.GONE, world.clock.now())
    assert ended.state is SessionState.QUEUED, "only converge moves a session"
    assert world.queue.nudges == [(made.id, Queue.CRITICAL)]
    assert world.store.audit.list() == []


def test_to_end_twice_or_what_has_ended_is_no_error(world: World) -> None:
    made = world.ask()
    first = requests.end(world.deps, VISITOR, made.id)
    assert requests.end(world.deps, VISITOR, made.id) == first
    world.converge(made)
    world.queue.nudges.clear()
    assert requests.end(world.deps, VISITOR, made.id).state is SessionState.DESTROYED
    assert world.queue.nudges == []


def test_an_operator_who_ends_somebody_elses_session_is_audited(world: World) -> None:
    made = world.ask()
    requests.end(world.deps, OPERATOR, made.id)
    (entry,) = world.store.audit.list()
    assert (entry.actor, entry.action, entry.subject) == (
        OPERATOR.user_id,
        "session_killed",
        made.id,
    )


def extend(world: World, session_id: str) -> object:
    return requests.extend(world.deps, VISITOR, session_id, HOUR_S).expires_at


def end(world: World, session_id: str) -> object:
    return requests.end(world.deps, VISITOR, session_id).wanted


@pytest.mark.parametrize(
    ("change", "wanted"),
    [(extend, Wanted.RUNNING), (end, Wanted.GONE)],
)
def test_an_intent_that_loses_a_race_is_written_all_the_same(
    world: World, change: Callable[[World, str], object], wanted: Wanted
) -> None:
    made = world.ask()
    world.store = RaceToWrite(world.store, times=3)
    result = change(world, made.id)
    assert result in {world.session(made).expires_at, world.session(made).wanted}
    assert world.session(made).wanted is wanted
    assert world.session(made).revision == made.revision + 4


def test_a_stranger_changes_nothing(world: World) -> None:
    made = world.ask()
    with pytest.raises(errors.NotFound):
        requests.extend(world.deps, STRANGER, made.id, HOUR_S)
    with pytest.raises(errors.NotFound):
        requests.end(world.deps, STRANGER, made.id)
    assert world.session(made) == made
