"""What an agent reports, in whatever order it arrives: nothing that a user sees goes backwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.sessions.reports import accept_report
from orchestrator.domain.sessions.session import (
    Failure,
    Phase,
    Report,
    Session,
    SessionState,
    Wanted,
)
from tests.fakes import samples
from tests.fakes.samples import NOW, later

ORDER = [Phase.GENERATING, Phase.DEPLOYING, Phase.READY, Phase.FAILED]


def provisioning(**changes: Any) -> Session:
    fields = {"state": SessionState.PROVISIONING, "due_at": later(2), **changes}
    return samples.session(**fields)


def say(seq: int, phase: Phase = Phase.GENERATING, progress: int = 40) -> Report:
    failure = Failure(code="app_crashed", message="it crashed") if phase is Phase.FAILED else None
    return Report(seq=seq, phase=phase, progress=progress, message=f"{seq}", failure=failure)


def after(session: Session, *reports: Report) -> Session:
    for report in reports:
        session = accept_report(session, report, later(1)) or session
    return session


def test_the_first_report_makes_the_session_due_at_once() -> None:
    told = accept_report(provisioning(), say(1), later(1))
    assert told is not None
    assert told.report == say(1)
    assert (told.due_at, told.updated_at) == (later(1), later(1))


def test_progress_within_a_phase_wakes_nobody() -> None:
    told = accept_report(provisioning(report=say(1)), say(2, progress=50), later(1))
    assert told is not None
    assert told.report == say(2, progress=50)
    assert told.due_at == later(2)


def test_another_phase_makes_the_session_due_at_once() -> None:
    told = accept_report(provisioning(report=say(1)), say(2, Phase.DEPLOYING, 90), later(1))
    assert told is not None
    assert told.due_at == later(1)


@pytest.mark.parametrize("seq", [1, 4, 5])
def test_a_late_or_repeated_report_is_dropped(seq: int) -> None:
    known = provisioning(report=say(5))
    assert accept_report(known, say(seq, Phase.READY, 100), later(1)) is None


def test_a_late_report_never_moves_progress_backwards() -> None:
    told = after(provisioning(), say(1, progress=80), say(2, progress=40))
    assert told.report is not None
    assert (told.report.seq, told.report.progress, told.report.message) == (2, 80, "2")


def test_what_was_ready_stays_ready_when_the_agent_starts_the_app_again() -> None:
    told = after(provisioning(), say(1, Phase.READY, 100), say(2, Phase.DEPLOYING, 90))
    assert told.report is not None
    assert (told.report.phase, told.report.progress) == (Phase.READY, 100)


def test_an_app_that_was_ready_may_fail() -> None:
    told = after(provisioning(), say(1, Phase.READY, 100), say(2, Phase.FAILED, 100))
    assert told.report is not None
    assert told.report.failure == Failure(code="app_crashed", message="it crashed")


def test_nothing_is_heard_after_an_agent_gave_up() -> None:
    assert accept_report(provisioning(report=say(1, Phase.FAILED)), say(2), later(1)) is None


@pytest.mark.parametrize(
    "over",
    [
        {"state": SessionState.DESTROYED},
        {"state": SessionState.FAILED},
        {"wanted": Wanted.GONE},
        {"failure": Failure(code="x", message="y")},
    ],
    ids="-".join,
)
def test_a_session_that_is_over_listens_to_nobody(over: dict[str, Any]) -> None:
    assert accept_report(provisioning(**over), say(1), later(1)) is None


reports = st.builds(
    say, st.integers(1, 12), st.sampled_from(ORDER[:3]), st.integers(min_value=0, max_value=100)
)


@given(st.lists(reports, max_size=25))
def test_phase_progress_and_number_never_go_backwards(deliveries: list[Report]) -> None:
    session = provisioning()
    seen = (0, 0, 0)
    for delivery in deliveries:
        session = after(session, delivery)
        if session.report is not None:
            heard = session.report
            now = (heard.seq, ORDER.index(heard.phase), heard.progress)
            assert all(new >= old for new, old in zip(now, seen, strict=True))
            seen = now


@given(
    st.lists(st.tuples(st.sampled_from(ORDER[:3]), st.integers(0, 100)), min_size=1, max_size=8),
    st.data(),
)
def test_lost_doubled_and_shuffled_deliveries_lead_to_what_the_last_one_said(
    said: list[tuple[Phase, int]], data: st.DataObject
) -> None:
    """An agent reports in order, so the newest report holds the furthest phase and progress."""
    phases = sorted((phase for phase, _ in said), key=ORDER.index)
    figures = sorted(progress for _, progress in said)
    sent = [
        say(seq, phase, figure)
        for seq, (phase, figure) in enumerate(zip(phases, figures, strict=True), start=1)
    ]
    copies = data.draw(st.lists(st.sampled_from(sent), max_size=10))
    delivered = data.draw(st.permutations([*sent, *copies]))
    assert after(provisioning(), *delivered).report == sent[-1]


@given(st.lists(reports, max_size=10))
def test_a_report_changes_nothing_but_the_report_and_when_to_look(said: list[Report]) -> None:
    before = provisioning()
    told = after(before, *said)
    assert replace(told, report=None, updated_at=before.updated_at, due_at=before.due_at) == before
    assert told.due_at in {before.due_at, later(1)}
    assert told.created_at == NOW
