"""Asking for changes of an app: what is taken, what is refused, and what counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.people.access import Principal
from orchestrator.domain.sessions.session import Session, SessionState, Tier
from orchestrator.services.sessions import changes
from tests.unit.services.world import OPERATOR, VISITOR, RaceToWrite, World, bundle_of

STRANGER = Principal(user_id=ids.UserId("usr_" + "s" * 26), tier=Tier.FREE)


@pytest.fixture
def app(world: World) -> Session:
    """A READY app that Claude has written."""
    world.host()
    return world.generated()


def code_of(caught: pytest.ExceptionInfo[errors.SpawnError]) -> str:
    return caught.value.code


def test_a_message_is_counted_kept_and_nudged_for(world: World, app: Session) -> None:
    world.queue.nudges.clear()
    asked = changes.say(world.deps, VISITOR, app.id, "  make it blue\n")
    assert (asked.change.number, asked.change.text) == (1, "make it blue")
    assert world.change(app, 1) == asked.change
    assert world.session(app).turns.waiting == 1
    assert world.session(app).due_at == world.clock.now()
    assert world.queue.nudged == [app.id]


def test_a_message_may_come_before_the_app_is_there(world: World, session: Session) -> None:
    due_at = world.session(session).due_at
    world.say(session)
    assert world.session(session).turns.waiting == 1
    assert world.session(session).due_at == due_at, "nothing to look at before it runs"


@pytest.mark.parametrize(
    ("text", "code"),
    [(" \n", "message_empty"), ("x" * 16_385, "message_too_large"), ("a\0b", "message_not_text")],
)
def test_what_is_no_message_is_refused_with_the_reason(
    world: World, app: Session, text: str, code: str
) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        changes.say(world.deps, VISITOR, app.id, text)
    assert code_of(caught) == code
    assert caught.value.detail["field"] == "text"
    assert world.session(app).turns.asked == 0


def test_without_a_key_nobody_could_carry_it_out(world: World, app: Session) -> None:
    world.policy = replace(world.policy, can_generate=False)
    with pytest.raises(errors.InvalidInput) as caught:
        changes.say(world.deps, VISITOR, app.id, "blue")
    assert code_of(caught) == "generation_unavailable"


def test_a_sixth_message_has_to_wait_outside(world: World, session: Session) -> None:
    for _ in range(5):
        world.say(session)
    with pytest.raises(errors.LimitReached) as caught:
        world.say(session)
    assert (code_of(caught), caught.value.detail["limit"]) == ("messages_full", 5)


def test_the_one_under_way_does_not_count_as_waiting(world: World, app: Session) -> None:
    world.say(app)
    world.converge(app)
    for _ in range(5):
        world.say(app)
    assert world.session(app).turns.waiting == 5


def test_somebody_elses_app_is_not_there(world: World, app: Session) -> None:
    with pytest.raises(errors.NotFound):
        changes.say(world.deps, STRANGER, app.id, "blue")
    with pytest.raises(errors.NotFound):
        changes.restore(world.deps, STRANGER, app.id, 1)
    assert changes.say(world.deps, OPERATOR, app.id, "blue").change.number == 1


def test_what_is_ending_is_not_changed(world: World, app: Session) -> None:
    world.want_gone(app)
    with pytest.raises(errors.Conflict) as caught:
        world.say(app)
    assert code_of(caught) == "session_ending"


def test_a_repeated_request_is_answered_with_the_first(world: World, app: Session) -> None:
    first = changes.say(world.deps, VISITOR, app.id, "blue", "key-1")
    again = changes.say(world.deps, VISITOR, app.id, "blue", "key-1")
    assert again.change == first.change
    assert world.session(app).turns.asked == 1
    with pytest.raises(errors.Conflict) as caught:
        changes.say(world.deps, VISITOR, app.id, "green", "key-1")
    assert code_of(caught) == "idempotency_conflict"


def test_a_repeated_request_is_answered_even_when_nothing_more_is_taken(
    world: World, app: Session
) -> None:
    first = changes.say(world.deps, VISITOR, app.id, "blue", "key-1")
    world.want_gone(app)
    assert changes.say(world.deps, VISITOR, app.id, "blue", "key-1").change == first.change


def test_two_who_ask_at_once_get_two_numbers(world: World, app: Session) -> None:
    raced = replace(world.deps, store=RaceToWrite(world.store))
    assert changes.say(raced, VISITOR, app.id, "blue").change.number == 1
    assert world.session(app).turns.asked == 1


# Restoring


def test_a_version_that_is_not_there_cannot_be_restored(world: World, app: Session) -> None:
    with pytest.raises(errors.NotFound) as caught:
        changes.restore(world.deps, VISITOR, app.id, 2)
    assert code_of(caught) == "version_unknown"


def test_the_version_that_runs_need_not_be_restored(world: World, app: Session) -> None:
    with pytest.raises(errors.Conflict) as caught:
        changes.restore(world.deps, VISITOR, app.id, 1)
    assert code_of(caught) == "version_running"


def test_behind_a_message_that_waits_it_may_well_be(world: World, app: Session) -> None:
    world.say(app)
    asked = changes.restore(world.deps, VISITOR, app.id, 1)
    assert (asked.change.number, asked.change.restores) == (2, 1)


def test_a_version_that_never_ran_well_is_not_restored(world: World, app: Session) -> None:
    world.say(app)
    world.converge(app)
    world.keep(app, bundle_of("broken"), healthy=False)
    assert world.session(app).state is SessionState.GENERATING
    with pytest.raises(errors.Conflict) as caught:
        changes.restore(world.deps, VISITOR, app.id, 2)
    assert code_of(caught) == "version_not_healthy"
