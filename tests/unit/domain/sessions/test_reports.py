"""Reports of agents, in any order of arrival: nothing that a user sees goes backwards."""

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


def report_of(seq: int, phase: Phase = Phase.GENERATING, progress: int = 40) -> Report:
    failure = Failure(code="app_crashed", message="it crashed") if phase is Phase.FAILED else None
    return Report(seq=seq, phase=phase, progress=progress, message=f"{seq}", failure=failure)


def after(session: Session, *reports: Report) -> Session:
    for report in reports:
        session = accept_report(session, report, later(1)) or session
    return session


def test_the_first_report_makes_the_session_due_at_once() -> None:
    session = accept_report(provisioning(), report_of(1), later(1))
    assert session is not None
    assert session.report == report_of(1)
    assert (session.due_at, session.updated_at) == (later(1), later(1))


def test_progress_within_a_phase_does_not_make_the_session_due() -> None:
    session = accept_report(provisioning(report=report_of(1)), report_of(2, progress=50), later(1))
    assert session is not None
    assert session.report == report_of(2, progress=50)
    assert session.due_at == later(2)


def test_another_phase_makes_the_session_due_at_once() -> None:
    session = accept_report(
        provisioning(report=report_of(1)), report_of(2, Phase.DEPLOYING, 90), later(1)
    )
    assert session is not None
    assert session.due_at == later(1)


@pytest.mark.parametrize("seq", [1, 4, 5])
def test_a_late_or_repeated_report_is_dropped(seq: int) -> None:
    session = provisioning(report=report_of(5))
    assert accept_report(session, report_of(seq, Phase.READY, 100), later(1)) is None


def test_a_late_report_never_moves_progress_backwards() -> None:
    session = after(provisioning(), report_of(1, progress=80), report_of(2, progress=40))
    assert session.report is not None
    assert (session.report.seq, session.report.progress, session.report.message) == (2, 80, "2")


def test_an_app_that_was_ready_stays_ready_when_the_agent_starts_it_again() -> None:
    session = after(
        provisioning(), report_of(1, Phase.READY, 100), report_of(2, Phase.DEPLOYING, 90)
    )
    assert session.report is not None
    assert (session.report.phase, session.report.progress) == (Phase.READY, 100)


def test_an_app_that_was_ready_may_fail() -> None:
    session = after(provisioning(), report_of(1, Phase.READY, 100), report_of(2, Phase.FAILED, 100))
    assert session.report is not None
    assert session.report.failure == Failure(code="app_crashed", message="it crashed")


def test_no_report_counts_after_a_failed_one() -> None:
    assert (
        accept_report(provisioning(report=report_of(1, Phase.FAILED)), report_of(2), later(1))
        is None
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"state": SessionState.DESTROYED},
        {"state": SessionState.FAILED},
        {"wanted": Wanted.GONE},
        {"failure": Failure(code="x", message="y")},
    ],
    ids="-".join,
)
def test_a_session_that_ends_or_failed_takes_no_report(fields: dict[str, Any]) -> None:
    assert accept_report(provisioning(**fields), report_of(1), later(1)) is None


any_report = st.builds(
    report_of,
    st.integers(1, 12),
    st.sampled_from(ORDER[:3]),
    st.integers(min_value=0, max_value=100),
)


@given(st.lists(any_report, max_size=25))
def test_phase_progress_and_number_never_go_backwards(deliveries: list[Report]) -> None:
    session = provisioning()
    latest = (0, 0, 0)
    for delivery in deliveries:
        session = after(session, delivery)
        if session.report is not None:
            report = session.report
            current = (report.seq, ORDER.index(report.phase), report.progress)
            assert all(new >= old for new, old in zip(current, latest, strict=True))
            latest = current


@given(
    st.lists(st.tuples(st.sampled_from(ORDER[:3]), st.integers(0, 100)), min_size=1, max_size=8),
    st.data(),
)
def test_lost_repeated_and_shuffled_deliveries_end_with_the_last_report(
    contents: list[tuple[Phase, int]], data: st.DataObject
) -> None:
    """An agent reports in order, so the newest report holds the furthest phase and progress."""
    phases = sorted((phase for phase, _ in contents), key=ORDER.index)
    figures = sorted(progress for _, progress in contents)
    sent = [
        report_of(seq, phase, figure)
        for seq, (phase, figure) in enumerate(zip(phases, figures, strict=True), start=1)
    ]
    copies = data.draw(st.lists(st.sampled_from(sent), max_size=10))
    delivered = data.draw(st.permutations([*sent, *copies]))
    assert after(provisioning(), *delivered).report == sent[-1]


@given(st.lists(any_report, max_size=10))
def test_a_report_changes_nothing_but_the_report_and_the_due_time(reports: list[Report]) -> None:
    before = provisioning()
    session = after(before, *reports)
    assert (
        replace(session, report=None, updated_at=before.updated_at, due_at=before.due_at) == before
    )
    assert session.due_at in {before.due_at, later(1)}
    assert session.created_at == NOW
