"""Whatever happens outside, the planner comes to rest, and what is to end ends."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions import planner
from orchestrator.domain.sessions.session import SessionState
from tests.unit.domain.life import Event, Life

fates = st.lists(st.sampled_from(Event), max_size=25)
GOOD_DAY = [Event.DEPLOYING, Event.READY]


def lived(fate: list[Event]) -> Life:
    """A life with these events, looked at after each."""
    life = Life()
    life.run()
    for event in fate:
        life.happen(event)
        life.run()
    return life


def heal(life: Life) -> None:
    """From now on everything works and somebody confirms the routes."""
    for event in (Event.ENGINE_UP, Event.COLD, Event.URL_ALIVE, Event.HOST_BACK):
        life.happen(event)


@given(fates)
@example([*GOOD_DAY, Event.BROKEN, Event.ROUTES])
def test_from_wherever_a_life_led_planning_comes_to_rest(fate: list[Event]) -> None:
    life = lived(fate)
    before = life.everything
    (step,) = life.run()  # it had come to rest, so it stays there
    assert life.everything == before
    assert step in {"Rest", "Done", "Claim", "Verify", "Remove", "Switch"}


@given(fates)
@example([Event.BROKEN, Event.FULL])
@example([Event.COLD, Event.LONG_TIME, Event.ENGINE_DOWN])
@example([*GOOD_DAY, Event.KEPT, Event.DRAIN])
@example([*GOOD_DAY, Event.KEPT, Event.DRAIN, Event.OTHER_READY])
def test_what_is_to_end_ends_and_leaves_no_sandbox(fate: list[Event]) -> None:
    life = lived(fate)
    verdict = life.session.state
    life.end()
    heal(life)
    for _ in range(3):  # begun; withdrawn and confirmed; removed
        life.run()
        life.happen(Event.ROUTES)
    expected = SessionState.FAILED if verdict is SessionState.FAILED else SessionState.DESTROYED
    assert life.session.state is expected
    assert life.session.sandbox_id is None
    assert life.sandbox is None or life.sandbox.state is SandboxState.GONE
    assert (life.session.move, life.other) == (None, None)
    assert life.run() == ["Done"]


@given(fates)
def test_what_is_to_run_runs_in_the_end_or_says_why_not(fate: list[Event]) -> None:
    life = lived(fate)
    heal(life)
    for _ in range(40):
        life.run()
        for event in (Event.TIME, Event.ROUTES, Event.DIALLED, Event.DEPLOYING, Event.READY):
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


@given(fates)
def test_a_session_never_has_more_attempts_than_there_may_be(fate: list[Event]) -> None:
    life = Life()
    for event in fate:
        life.run()
        life.happen(event)
        assert 1 <= life.session.attempt <= planner.ATTEMPTS_MAX


@given(fates)
def test_a_verdict_is_only_lifted_by_another_attempt(fate: list[Event]) -> None:
    life = Life()
    for event in fate:
        before = life.session
        life.run()
        if before.failure is not None and life.session.failure != before.failure:
            assert SessionState.QUEUED in [
                entered.state for entered in life.session.history[len(before.history) :]
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
MOVING += [Event.OTHER_DIALLED, Event.OTHER_READY, Event.OTHER_FAILED, Event.OTHER_BROKEN]
MOVING += [Event.URL_DEAD, Event.URL_ALIVE, Event.HOST_AWAY, Event.HOST_BACK]


@given(st.lists(st.sampled_from(MOVING), max_size=25))
@example([Event.DRAIN, Event.OTHER_READY, Event.OTHER_BROKEN, Event.ROUTES, Event.LONG_TIME])
def test_a_move_never_takes_a_running_app_from_its_url(fate: list[Event]) -> None:
    life = lived([*GOOD_DAY, Event.KEPT])
    slug = served(life)
    for event in fate:
        life.happen(event)
        life.run()
        assert served(life) == slug


def test_a_move_goes_from_the_drain_to_one_sandbox_elsewhere() -> None:
    life = lived([*GOOD_DAY, Event.KEPT])
    assert life.sandbox is not None
    first = life.sandbox.id
    life.happen(Event.DRAIN)
    assert life.run() == ["Relocate"]
    life.happen(Event.OTHER_READY)
    assert life.run() == ["Switch", "Rest"]
    life.happen(Event.ROUTES)
    assert life.run() == ["Rest"], "what was asked before is still answered"
    for _ in range(5):
        life.happen(Event.TIME)
    assert life.run() == ["LetGo", "Rest"]
    assert served(life)
    assert life.sandbox.id != first


CHANGING = [Event.ASKED, Event.GENERATING, Event.DEPLOYING, Event.READY, Event.SETBACK]
CHANGING += [Event.TIME, Event.LONG_TIME, Event.ROUTES, Event.URL_DEAD, Event.URL_ALIVE]
CHANGING += [Event.HOST_AWAY, Event.HOST_BACK, Event.FULL, Event.WARM, Event.ENGINE_DOWN]


@given(st.lists(st.sampled_from(CHANGING), max_size=25))
@example([Event.ASKED, Event.LONG_TIME, Event.ASKED, Event.SETBACK])
def test_a_change_never_takes_a_running_app_from_its_url(fate: list[Event]) -> None:
    life = lived([*GOOD_DAY, Event.KEPT])
    slug = served(life)
    for event in fate:
        life.happen(event)
        life.run()
        assert served(life) == slug


@given(fates)
def test_changes_are_over_in_their_order_and_none_is_forgotten(fate: list[Event]) -> None:
    life = Life()
    for event in fate:
        before = life.session.turns
        life.happen(event)
        life.run()
        turns = life.session.turns
        assert before.over <= turns.over <= turns.asked
        assert turns.given in {0, turns.over, turns.over + 1} or turns.given < turns.over
        assert turns.under_way == life.session.changing or life.session.state in CLEANED_UP


CLEANED_UP = {SessionState.DESTROYING, SessionState.DESTROYED, SessionState.FAILED}


def test_a_change_goes_from_the_message_to_the_next_version() -> None:
    life = lived([*GOOD_DAY, Event.KEPT])
    life.happen(Event.ASKED)
    assert life.run() == ["BeginChange", "Rest"]
    life.happen(Event.GENERATING)
    assert life.run() == ["Rest"]
    life.happen(Event.DEPLOYING)
    assert life.run() == ["Advance", "Rest"]
    life.happen(Event.READY)
    assert life.run() == ["Verify", "Rest"]
    assert life.session.turns.next is None


def served(life: Life) -> str:
    """The name under which the app of a session is reached."""
    assert life.session.served
    assert life.sandbox is not None
    assert life.sandbox.state is SandboxState.CLAIMED
    return life.sandbox.slug
