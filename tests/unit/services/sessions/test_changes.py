"""Requests for changes of an app: which are accepted, refused, or answered as repeated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.people.access import LIMITS, Principal
from orchestrator.domain.sessions.session import Session, SessionState, Tier
from orchestrator.services.sessions import changes
from tests.unit.services.world import OPERATOR, VISITOR, RaceToWrite, World, bundle_of

STRANGER = Principal(user_id=ids.UserId("usr_" + "s" * 26), tier=Tier.FREE)


@pytest.fixture
def app(world: World) -> Session:
    """A READY app that Claude has written."""
    world.add_host()
    return world.generate_app()


def code_of(caught: pytest.ExceptionInfo[errors.SpawnError]) -> str:
    return caught.value.code


def test_a_message_is_counted_and_kept_and_its_session_is_nudged(
    world: World, app: Session
) -> None:
    world.queue.nudges.clear()
    added = changes.send_message(world.deps, VISITOR, app.id, "  make it blue\n")
    assert (added.change.number, added.change.text) == (1, "make it blue")
    assert world.change(app, 1) == added.change
    assert world.session(app).turns.waiting == 1
    assert world.session(app).due_at == world.clock.now()
    assert world.queue.nudged == [app.id]


def test_a_message_may_come_before_the_app_is_ready(world: World, session: Session) -> None:
    due_at = world.session(session).due_at
    world.send_message(session)
    assert world.session(session).turns.waiting == 1
    assert world.session(session).due_at == due_at, "converge has nothing to do before the app runs"


def test_who_changes_apps_without_end_is_slowed_down(world: World, app: Session) -> None:
    limit = LIMITS[Tier.FREE].changes_per_minute
    for _ in range(limit):
        changes.send_message(world.deps, VISITOR, app.id, "blue", None)
        session = world.session(app)
        turns = replace(session.turns, finished=session.turns.requested)
        world.deps.store.sessions.save(replace(session, turns=turns))
    with pytest.raises(errors.LimitReached) as caught:
        changes.send_message(world.deps, VISITOR, app.id, "blue")
    assert (code_of(caught), caught.value.detail["limit"]) == ("too_many_changes", limit)
    assert world.session(app).turns.requested == limit
    changes.send_message(world.deps, OPERATOR, app.id, "blue")
    world.clock.advance(61)
    changes.send_message(world.deps, VISITOR, app.id, "blue")


@pytest.mark.parametrize(
    ("text", "code"),
    [(" \n", "message_empty"), ("x" * 16_385, "message_too_large"), ("a\0b", "message_not_text")],
)
def test_an_invalid_message_is_refused_with_the_reason(
    world: World, app: Session, text: str, code: str
) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        changes.send_message(world.deps, VISITOR, app.id, text)
    assert code_of(caught) == code
    assert caught.value.detail["field"] == "text"
    assert world.session(app).turns.requested == 0


def test_without_a_provider_a_message_is_refused(world: World, app: Session) -> None:
    world.policy = replace(world.policy, can_generate=False)
    with pytest.raises(errors.Conflict) as caught:
        changes.send_message(world.deps, VISITOR, app.id, "blue")
    assert code_of(caught) == "generation_unavailable"


def test_a_sixth_waiting_message_is_refused(world: World, session: Session) -> None:
    for _ in range(5):
        world.send_message(session)
    with pytest.raises(errors.LimitReached) as caught:
        world.send_message(session)
    assert (code_of(caught), caught.value.detail["limit"]) == ("messages_full", 5)


def test_the_running_change_does_not_count_as_waiting(world: World, app: Session) -> None:
    world.send_message(app)
    world.converge(app)
    for _ in range(5):
        world.send_message(app)
    assert world.session(app).turns.waiting == 5


def test_another_users_app_is_not_found(world: World, app: Session) -> None:
    with pytest.raises(errors.NotFound):
        changes.send_message(world.deps, STRANGER, app.id, "blue")
    with pytest.raises(errors.NotFound):
        changes.restore(world.deps, STRANGER, app.id, 1)
    assert changes.send_message(world.deps, OPERATOR, app.id, "blue").change.number == 1


def test_an_ending_session_accepts_no_changes(world: World, app: Session) -> None:
    world.request_end(app)
    with pytest.raises(errors.Conflict) as caught:
        world.send_message(app)
    assert code_of(caught) == "session_ending"


def test_a_repeated_request_is_answered_with_the_first(world: World, app: Session) -> None:
    first = changes.send_message(world.deps, VISITOR, app.id, "blue", "key-1")
    repeated = changes.send_message(world.deps, VISITOR, app.id, "blue", "key-1")
    assert repeated.change == first.change
    assert world.session(app).turns.requested == 1
    with pytest.raises(errors.Conflict) as caught:
        changes.send_message(world.deps, VISITOR, app.id, "green", "key-1")
    assert code_of(caught) == "idempotency_conflict"


def test_a_repeated_request_is_answered_even_after_the_session_has_ended(
    world: World, app: Session
) -> None:
    first = changes.send_message(world.deps, VISITOR, app.id, "blue", "key-1")
    world.request_end(app)
    assert changes.send_message(world.deps, VISITOR, app.id, "blue", "key-1").change == first.change


def test_a_message_that_loses_a_race_is_counted_once(world: World, app: Session) -> None:
    raced = replace(world.deps, store=RaceToWrite(world.store))
    assert changes.send_message(raced, VISITOR, app.id, "blue").change.number == 1
    assert world.session(app).turns.requested == 1


# Restoring


def test_an_unknown_version_can_not_be_restored(world: World, app: Session) -> None:
    with pytest.raises(errors.NotFound) as caught:
        changes.restore(world.deps, VISITOR, app.id, 2)
    assert code_of(caught) == "version_unknown"


def test_the_running_version_can_not_be_restored(world: World, app: Session) -> None:
    with pytest.raises(errors.Conflict) as caught:
        changes.restore(world.deps, VISITOR, app.id, 1)
    assert code_of(caught) == "version_running"


def test_the_running_version_can_be_restored_after_a_waiting_message(
    world: World, app: Session
) -> None:
    world.send_message(app)
    added = changes.restore(world.deps, VISITOR, app.id, 1)
    assert (added.change.number, added.change.restores) == (2, 1)


def test_a_version_that_never_ran_well_is_not_restored(world: World, app: Session) -> None:
    world.send_message(app)
    world.converge(app)
    world.upload_bundle(app, bundle_of("broken"), healthy=False)
    assert world.session(app).state is SessionState.GENERATING
    with pytest.raises(errors.Conflict) as caught:
        changes.restore(world.deps, VISITOR, app.id, 2)
    assert code_of(caught) == "version_not_healthy"
