"""What the agent at the other end of a move says is kept beside what the running app's says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain.sessions.reports import accept_successor_report
from orchestrator.domain.sessions.session import Move, Phase, Report, Session, SessionState, Wanted
from tests.fakes import samples
from tests.fakes.samples import NOW, later


def said(seq: int, phase: Phase) -> Report:
    return Report(seq=seq, phase=phase, progress=50)


def moving(report: Report | None = None) -> Session:
    session: Session = samples.full_session(
        state=SessionState.READY, failure=None, due_at=later(99), report=said(7, Phase.READY)
    )
    assert session.move is not None
    return replace(session, move=Move(sandbox_id=session.move.sandbox_id, report=report))


def test_a_first_report_is_kept_with_the_move_and_looked_at_at_once() -> None:
    session = moving()
    heard = accept_successor_report(session, said(1, Phase.DEPLOYING), NOW)
    assert heard is not None
    assert heard.move is not None
    assert heard == replace(
        session, due_at=NOW, move=replace(session.move, report=said(1, Phase.DEPLOYING))
    )


def test_progress_within_a_phase_wakes_nobody_here_either() -> None:
    heard = accept_successor_report(moving(said(1, Phase.DEPLOYING)), said(2, Phase.DEPLOYING), NOW)
    assert heard is not None
    assert heard.due_at == later(99)


@pytest.mark.parametrize("known", [said(5, Phase.DEPLOYING), said(1, Phase.FAILED)], ids=str)
def test_what_comes_late_or_after_the_agent_gave_up_is_dropped(known: Report) -> None:
    seq = known.seq if known.phase is not Phase.FAILED else 9
    assert accept_successor_report(moving(known), said(seq, Phase.READY), NOW) is None


@pytest.mark.parametrize(
    "over", [{"state": SessionState.DESTROYED}, {"wanted": Wanted.GONE}, {"move": None}], ids=str
)
def test_a_session_that_is_over_or_does_not_move_listens_to_no_successor(
    over: dict[str, object],
) -> None:
    session = replace(moving(), **over)  # type: ignore[arg-type] # fields by name
    assert accept_successor_report(session, said(1, Phase.READY), NOW) is None
