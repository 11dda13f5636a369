"""During a move, the reports of the new agent are kept apart from those of the old one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain.sessions.reports import accept_successor_report
from orchestrator.domain.sessions.session import Move, Phase, Report, Session, SessionState, Wanted
from tests.fakes import samples
from tests.fakes.samples import NOW, later


def report_of(seq: int, phase: Phase) -> Report:
    return Report(seq=seq, phase=phase, progress=50)


def moving(report: Report | None = None) -> Session:
    session: Session = samples.full_session(
        state=SessionState.READY, failure=None, due_at=later(99), report=report_of(7, Phase.READY)
    )
    assert session.move is not None
    return replace(session, move=Move(sandbox_id=session.move.sandbox_id, report=report))


def test_the_first_report_is_kept_with_the_move_and_makes_the_session_due() -> None:
    session = moving()
    session_after = accept_successor_report(session, report_of(1, Phase.DEPLOYING), NOW)
    assert session_after is not None
    assert session_after.move is not None
    assert session_after == replace(
        session, due_at=NOW, move=replace(session.move, report=report_of(1, Phase.DEPLOYING))
    )


def test_progress_within_a_phase_does_not_make_the_session_due() -> None:
    session_after = accept_successor_report(
        moving(report_of(1, Phase.DEPLOYING)), report_of(2, Phase.DEPLOYING), NOW
    )
    assert session_after is not None
    assert session_after.due_at == later(99)


@pytest.mark.parametrize(
    "current", [report_of(5, Phase.DEPLOYING), report_of(1, Phase.FAILED)], ids=str
)
def test_a_report_that_is_late_or_follows_a_failed_one_is_dropped(current: Report) -> None:
    seq = current.seq if current.phase is not Phase.FAILED else 9
    assert accept_successor_report(moving(current), report_of(seq, Phase.READY), NOW) is None


@pytest.mark.parametrize(
    "fields", [{"state": SessionState.DESTROYED}, {"wanted": Wanted.GONE}, {"move": None}], ids=str
)
def test_a_session_that_ends_or_does_not_move_takes_no_such_report(
    fields: dict[str, object],
) -> None:
    session = replace(moving(), **fields)  # type: ignore[arg-type] # fields by name
    assert accept_successor_report(session, report_of(1, Phase.READY), NOW) is None
