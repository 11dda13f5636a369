"""What people see of a session: progress, one line of text, and the time in each state."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain.sessions.progress import (
    REST,
    message_of,
    phase_seconds,
    progress_of,
    work_began_at,
)
from orchestrator.domain.sessions.session import (
    IN_PROGRESS,
    Failure,
    HistoryEntry,
    Phase,
    Report,
    SessionState,
)
from tests.fakes import samples
from tests.fakes.samples import later


def generating(progress: int, message: str = "") -> Report:
    return Report(seq=1, phase=Phase.GENERATING, progress=progress, message=message)


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (SessionState.QUEUED, 10),
        (SessionState.PROVISIONING, 30),
        (SessionState.GENERATING, 31),
        (SessionState.DEPLOYING, 90),
        (SessionState.READY, 100),
        (SessionState.DESTROYING, 100),
        (SessionState.DESTROYED, 100),
        (SessionState.FAILED, 100),
    ],
)
def test_each_state_has_its_progress(state: SessionState, shown: int) -> None:
    assert progress_of(samples.session(state=state)) == shown


@pytest.mark.parametrize(
    ("reported", "shown"), [(0, 31), (31, 31), (60, 60), (89, 89), (90, 89), (100, 89)]
)
def test_progress_of_generating_follows_the_agent_between_31_and_89(
    reported: int, shown: int
) -> None:
    session = samples.session(state=SessionState.GENERATING, report=generating(reported))
    assert progress_of(session) == shown


@pytest.mark.parametrize("state", sorted(set(SessionState) - {SessionState.GENERATING}))
def test_a_report_changes_the_progress_in_no_other_state(state: SessionState) -> None:
    plain = samples.session(state=state)
    assert progress_of(plain) == progress_of(samples.session(state=state, report=generating(77)))


@pytest.mark.parametrize("state", SessionState)
def test_every_state_has_a_message(state: SessionState) -> None:
    assert message_of(samples.session(state=state))


@pytest.mark.parametrize("state", SessionState)
def test_the_agents_words_are_shown_while_it_works(state: SessionState) -> None:
    session = samples.session(state=state, report=generating(40, "Writing index.html"))
    assert (message_of(session) == "Writing index.html") == (state in IN_PROGRESS)


@pytest.mark.parametrize(
    ("message", "shown"),
    [("Docker refused\nline 1\nline 2", "Docker refused"), ("short", "short"), ("", "")],
)
def test_a_failure_shows_its_first_line(message: str, shown: str) -> None:
    failure = Failure(code="app_not_ready", message=message)
    assert message_of(samples.session(state=SessionState.FAILED, failure=failure)) == shown


def test_a_second_attempt_says_that_it_is_one() -> None:
    assert "attempt 2" in message_of(samples.session(attempt=2))


def history(*entries: tuple[SessionState, float]) -> dict[str, Any]:
    return {
        "state": entries[-1][0],
        "history": tuple(HistoryEntry(state=state, at=later(at)) for state, at in entries),
    }


def test_the_present_state_is_timed_until_now() -> None:
    session = samples.session(**history((SessionState.QUEUED, 0), (SessionState.PROVISIONING, 1.5)))
    assert phase_seconds(session, later(4)) == {"queued": 1.5, "provisioning": 2.5}


def test_seconds_are_summed_over_attempts_in_order_of_first_entry() -> None:
    session = samples.session(
        **history(
            (SessionState.QUEUED, 0),
            (SessionState.PROVISIONING, 1),
            (SessionState.QUEUED, 3),
            (SessionState.PROVISIONING, 4),
        )
    )
    seconds = phase_seconds(session, later(5.25))
    assert list(seconds.items()) == [("queued", 2.0), ("provisioning", 3.25)]


def test_time_stands_still_after_the_end() -> None:
    ended = samples.session(
        **history(
            (SessionState.QUEUED, 0), (SessionState.DESTROYING, 2), (SessionState.DESTROYED, 3)
        )
    )
    seconds = phase_seconds(ended, later(9999))
    assert seconds == {"queued": 2.0, "destroying": 1.0, "destroyed": 0.0}


def test_a_clock_that_went_back_gives_no_negative_time() -> None:
    session = samples.session(**history((SessionState.QUEUED, 5), (SessionState.PROVISIONING, 2)))
    assert phase_seconds(session, later(0)) == {"queued": 0.0, "provisioning": 0.0}


def entries(*states: tuple[SessionState, float]) -> list[HistoryEntry]:
    """The states, each with its begin in seconds."""
    return [HistoryEntry(state=state, at=later(at)) for state, at in states]


def test_each_step_of_a_start_is_work_of_its_own() -> None:
    steps = entries(
        (SessionState.QUEUED, 0), (SessionState.PROVISIONING, 50), (SessionState.GENERATING, 51)
    )
    assert work_began_at(steps[:2]) == later(50)
    assert work_began_at(steps) == later(51)


def test_change_after_change_is_one_piece_of_work() -> None:
    rest = REST.total_seconds()
    hammered = entries(
        (SessionState.DEPLOYING, 0),
        (SessionState.READY, 1),
        (SessionState.GENERATING, 1 + rest),
        (SessionState.DEPLOYING, 30),
        (SessionState.READY, 40),
        (SessionState.DEPLOYING, 40.5),
        (SessionState.READY, 55),
        (SessionState.DEPLOYING, 55 + rest - 0.1),
    )
    assert work_began_at(hammered) == later(1 + rest)
    assert work_began_at(hammered[:4]) == later(1 + rest)


def test_a_change_soon_after_the_first_start_goes_on_with_it() -> None:
    soon = entries(
        (SessionState.QUEUED, 0),
        (SessionState.DEPLOYING, 100),
        (SessionState.READY, 101),
        (SessionState.DEPLOYING, 102),
    )
    assert work_began_at(soon) == later(100)
