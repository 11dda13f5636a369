"""Records what agents report of their assignments. Called by the agent app.

A report is a fact. It never moves a session; it nudges converge, which does.
"""

from __future__ import annotations

from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.sessions.reports import accept_report, accept_successor_report
from orchestrator.domain.sessions.session import Phase, Report, Session
from orchestrator.services.agents import access
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge


def record_report(
    deps: Deps, session: Session, sender: SandboxId, report: Report, lines: list[str]
) -> bool:
    """Record a report of the agent in sandbox `sender`, and its log lines.

    Returns False if the report is dropped because it is late, repeated or of no use any more.
    """
    now = deps.clock.now()
    if lines:
        deps.store.logs.append(session.id, lines, now)
    attempt, change = session.attempt, access.change_of(session, sender)
    while True:
        # Drop the report if the session has moved on: another attempt, sandbox or change.
        if session.attempt != attempt or not access.has_sandbox(session, sender):
            return False
        if access.change_of(session, sender) != change:
            return False
        is_successor = sender != session.sandbox_id
        accept = accept_successor_report if is_successor else accept_report
        last_phase = _last_phase(session, sender)
        changed = accept(session, report, now)
        if changed is None:
            return False
        try:
            saved = deps.store.sessions.save(changed)
        except errors.StaleWrite:
            session = deps.store.sessions.get(session.id)
            continue
        break
    deps.events.session_changed(saved.id)
    if last_phase is not report.phase:
        nudge(deps, saved)
    return True


def _last_phase(session: Session, sender: SandboxId) -> Phase | None:
    report = session.report
    if sender != session.sandbox_id:
        report = session.move.report if session.move is not None else None
    return report.phase if report is not None else None
