"""Which reports of agents count, and what they change. services.agents.reports calls it.

Late and repeated reports change nothing.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from orchestrator.domain.sessions.session import Phase, Report, Session, Wanted


def accept_report(session: Session, report: Report, now: datetime) -> Session | None:
    """The session with this report. None: the report is late, repeated or of no use any more.

    Within an attempt progress never goes backwards, even if the agent starts counting again. A
    report of another phase makes the session due at once, because converge may have work to do.
    """
    current = session.report
    if session.ended or session.failure is not None or session.wanted is Wanted.GONE:
        return None
    if not _is_newer(report, current):
        return None
    phase = report.phase
    if current is not None and phase is not Phase.FAILED:
        # An agent that restarts the app reports DEPLOYING again. Only the log needs to know: a
        # session whose app was READY stays READY.
        phase = max(current.phase, phase, key=_PHASE_ORDER.index)
    progress = max(report.progress, current.progress if current is not None else 0)
    is_new_phase = current is None or current.phase is not phase
    return replace(
        session,
        report=replace(report, phase=phase, progress=progress),
        updated_at=now,
        due_at=now if is_new_phase else session.due_at,
    )


def accept_successor_report(session: Session, report: Report, now: datetime) -> Session | None:
    """The same for the agent of the new sandbox, while the session moves to another host."""
    if session.ended or session.wanted is Wanted.GONE or session.move is None:
        return None
    current = session.move.report
    if not _is_newer(report, current):
        return None
    is_new_phase = current is None or current.phase is not report.phase
    return replace(
        session,
        move=replace(session.move, report=report),
        due_at=now if is_new_phase else session.due_at,
    )


def _is_newer(report: Report, current: Report | None) -> bool:
    """After FAILED no report of the same agent counts."""
    return current is None or (report.seq > current.seq and current.phase is not Phase.FAILED)


_PHASE_ORDER = (Phase.GENERATING, Phase.DEPLOYING, Phase.READY, Phase.FAILED)
