"""Whatever happens outside, planning comes to rest, and a session that should end does end."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions import planner
from orchestrator.domain.sessions.session import SessionState
from tests.unit.domain.life import Event, Life

event_lists = st.lists(st.sampled_from(Event), max_size=25)
GOOD_DAY = [Event.DEPLOYING, Event.READY]


def live_through(events: list[Event]) -> Life:
    """A life after these events, with all steps carried out after each."""
    life = Life()
    life.run()
    for event in events:
        life.happen(event)
        life.run()
    return life


def heal(life: Life) -> None:
    """From now on everything works."""
    for event in (Event.ENGINE_UP, Event.COLD, Event.URL_ALIVE, Event.HOST_BACK):
        life.happen(event)


@given(event_lists)
@example([*GOOD_DAY, Event.BROKEN, Event.ROUTES])
def test_planning_comes_to_rest_after_any_events(events: list[Event]) -> None:
    life = live_through(events)
    before = life.snapshot
    (step,) = life.run()  # it was at rest, so it stays at rest
    assert life.snapshot == before
    assert step in {"Wait", "Nothing", "Claim"}


@given(event_lists)
@example([Event.BROKEN, Event.FULL])
@example([Event.COLD, Event.LONG_TIME, Event.ENGINE_DOWN])
@example([*GOOD_DAY, Event.BUNDLE_KEPT, Event.DRAIN])
@example([*GOOD_DAY, Event.BUNDLE_KEPT, Event.DRAIN, Event.OTHER_READY])
def test_a_session_that_should_end_ends_and_leaves_no_sandbox(events: list[Event]) -> None:
    life = live_through(events)
    last_state = life.session.state
    life.end()
    heal(life)
    for _ in range(3):  # destroying; withdrawn and confirmed; removed by the daemon
        life.run()
        life.happen(Event.ROUTES)
    expected = SessionState.FAILED if last_state is SessionState.FAILED else SessionState.DESTROYED
    assert life.session.state is expected
    assert life.session.sandbox_id is None
    assert life.sandbox is None or life.sandbox.state is SandboxState.GONE
    assert (life.session.move, life.other) == (None, None)
    assert life.run() == ["Nothing"]


@given(event_lists)
def test_a_session_that_should_run_runs_in_the_end_or_says_why_not(events: list[Event]) -> None:
    life = live_through(events)
    heal(life)
    for _ in range(40):
        life.run()
        for event in (Event.TIME, Event.ROUTES, Event.CONNECTED, Event.DEPLOYING, Event.READY):
            life.happen(event)
    life.run()
    session = life.session
    if session.state is SessionState.FAILED:
        assert session.failure is not None
        assert session.failure.permanent or session.attempt == planner.ATTEMPTS_MAX
    else:
        assert session.state is SessionState.READY
        assert life.sandbox is not None
        assert life.sandbox.state is SandboxState.CLAIMED


@given(event_lists)
def test_a_session_never_has_more_attempts_than_there_may_be(events: list[Event]) -> None:
    life = Life()
    for event in events:
        life.run()
        life.happen(event)
        assert 1 <= life.session.attempt <= planner.ATTEMPTS_MAX


@given(event_lists)
def test_only_another_attempt_clears_a_failure(events: list[Event]) -> None:
    life = Life()
    for event in events:
        before = life.session
        life.run()
        if before.failure is not None and life.session.failure != before.failure:
            assert SessionState.QUEUED in [
                entry.state for entry in life.session.history[len(before.history) :]
            ]
        life.happen(event)


MOVING = [
    Event.DRAIN,
    Event.TIME,
    Event.LONG_TIME,
    Event.ROUTES,
    Event.FULL,
    Event.WARM,
    Event.COLD,
]
MOVING += [Event.START_REFUSED, Event.ENGINE_DOWN, Event.ENGINE_UP, Event.DRAIN_OVER]
MOVING += [Event.OTHER_CONNECTED, Event.OTHER_READY, Event.OTHER_FAILED, Event.OTHER_BROKEN]
MOVING += [Event.URL_DEAD, Event.URL_ALIVE, Event.HOST_AWAY, Event.HOST_BACK]


@given(st.lists(st.sampled_from(MOVING), max_size=25))
@example([Event.DRAIN, Event.OTHER_READY, Event.OTHER_BROKEN, Event.ROUTES, Event.LONG_TIME])
def test_a_move_never_takes_a_running_app_from_its_url(events: list[Event]) -> None:
    life = live_through([*GOOD_DAY, Event.BUNDLE_KEPT])
    slug = slug_of(life)
    for event in events:
        life.happen(event)
        life.run()
        assert slug_of(life) == slug


def test_a_move_goes_from_the_drain_to_one_sandbox_elsewhere() -> None:
    life = live_through([*GOOD_DAY, Event.BUNDLE_KEPT])
    assert life.sandbox is not None
    first = life.sandbox.id
    life.happen(Event.DRAIN)
    assert life.run() == ["Relocate"]
    life.happen(Event.OTHER_READY)
    assert life.run() == ["Walk", "Switch", "Wait"]
    life.happen(Event.ROUTES)
    assert life.run() == ["Wait"], "the old sandbox still answers its requests"
    for _ in range(5):
        life.happen(Event.TIME)
    assert life.run() == ["EndMove", "Wait"]
    assert slug_of(life)
    assert life.sandbox.id != first


CHANGING = [Event.CHANGE_REQUESTED, Event.GENERATING, Event.DEPLOYING, Event.READY, Event.SETBACK]
CHANGING += [Event.TIME, Event.LONG_TIME, Event.ROUTES, Event.URL_DEAD, Event.URL_ALIVE]
CHANGING += [Event.HOST_AWAY, Event.HOST_BACK, Event.FULL, Event.WARM, Event.ENGINE_DOWN]


@given(st.lists(st.sampled_from(CHANGING), max_size=25))
@example([Event.CHANGE_REQUESTED, Event.LONG_TIME, Event.CHANGE_REQUESTED, Event.SETBACK])
def test_a_change_never_takes_a_running_app_from_its_url(events: list[Event]) -> None:
    life = live_through([*GOOD_DAY, Event.BUNDLE_KEPT])
    slug = slug_of(life)
    for event in events:
        life.happen(event)
        life.run()
        assert slug_of(life) == slug


@given(event_lists)
def test_changes_finish_in_their_order_and_none_is_forgotten(events: list[Event]) -> None:
    life = Life()
    for event in events:
        before = life.session.turns
        life.happen(event)
        life.run()
        turns = life.session.turns
        assert before.finished <= turns.finished <= turns.requested
        assert (
            turns.started in {0, turns.finished, turns.finished + 1}
            or turns.started < turns.finished
        )
        assert (
            turns.has_running_change == life.session.is_changing or life.session.state in CLEANED_UP
        )


CLEANED_UP = {SessionState.DESTROYING, SessionState.DESTROYED, SessionState.FAILED}


def test_a_change_goes_from_the_message_to_the_next_version() -> None:
    life = live_through([*GOOD_DAY, Event.BUNDLE_KEPT])
    life.happen(Event.CHANGE_REQUESTED)
    assert life.run() == ["BeginChange", "Wait"]
    life.happen(Event.GENERATING)
    assert life.run() == ["Wait"]
    life.happen(Event.DEPLOYING)
    assert life.run() == ["Advance", "Wait"]
    life.happen(Event.READY)
    assert life.run() == ["EndChange", "Wait"]
    assert life.session.turns.next_number is None


def slug_of(life: Life) -> str:
    """The slug at which the app of a session is served."""
    assert life.session.is_served
    assert life.sandbox is not None
    assert life.sandbox.state is SandboxState.CLAIMED
    return life.sandbox.slug
