"""Which reports of agents count, and what they change. Late and repeated ones change nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from orchestrator.domain.sessions.session import Phase, Report, Session, Wanted


def accept_report(session: Session, report: Report, now: datetime) -> Session | None:
    """The session with a newer report in it, or None when the report is late, repeated or moot.

    Progress never goes backwards within an attempt: an agent that restarts its count is clamped.
    A report that changes what converge may do makes the session due at once.
    """
    known = session.report
    if session.ended or session.failure is not None or session.wanted is Wanted.GONE:
        return None
    if known is not None and (report.seq <= known.seq or known.phase is Phase.FAILED):
        return None
    # A second start of the app is DEPLOYING again only for the log; what was READY stays READY.
    phase = report.phase
    if known is not None and phase is not Phase.FAILED:
        phase = max(known.phase, phase, key=_PHASE_ORDER.index)
    progress = max(report.progress, known.progress if known is not None else 0)
    merged = replace(report, phase=phase, progress=progress)
    moved = known is None or known.phase is not phase
    return replace(session, report=merged, updated_at=now, due_at=now if moved else session.due_at)


def accept_successor_report(session: Session, report: Report, now: datetime) -> Session | None:
    """The session with what the agent of its next sandbox said; None when that is late or moot."""
    if session.ended or session.wanted is Wanted.GONE or session.move is None:
        return None
    known = session.move.report
    if known is not None and (report.seq <= known.seq or known.phase is Phase.FAILED):
        return None
    moved = known is None or known.phase is not report.phase
    return replace(
        session,
        move=replace(session.move, report=report),
        due_at=now if moved else session.due_at,
    )


_PHASE_ORDER = (Phase.GENERATING, Phase.DEPLOYING, Phase.READY, Phase.FAILED)
