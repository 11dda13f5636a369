"""Records what agents report of their assignments. Called by the agent app.

A report is a fact. It never moves a session; it nudges converge, which does. If the app runs now,
it is walked first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId, SessionId
from orchestrator.domain.sessions import planner
from orchestrator.domain.sessions.reports import accept_report, accept_successor_report
from orchestrator.domain.sessions.session import Phase, Report, Session
from orchestrator.services.agents import access
from orchestrator.services.deps import LOG_RATE, REPORT_RATE, Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.sessions import walks

_LINE_OVERHEAD_BYTES = 100  # of a row of its own


def record_report(
    deps: Deps, session: Session, sender: SandboxId, report: Report, lines: list[str]
) -> bool:
    """Record a report of the agent in sandbox `sender`, and then its log lines.

    Returns False if the report is dropped because it is late, repeated or of no use any more; its
    lines are dropped with it. Raises errors.LimitReached (too_many_reports).
    """
    now = deps.clock.now()
    _check_rate(deps, session, now)
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
        # An app that runs is walked next, and the result nudges.
        runs = report.phase is Phase.READY and last_phase is not Phase.READY
        is_walked = runs and walks.sandbox_to_walk(changed) == sender
        if is_walked:
            changed = replace(changed, due_at=planner.recheck_at(now))
        try:
            saved = deps.store.sessions.save(changed)
        except errors.StaleWrite:
            session = deps.store.sessions.get(session.id)
            continue
        break
    if lines:
        deps.store.logs.append(saved.id, _within_rate(deps, saved.id, lines, now), now)
    deps.events.session_changed(saved.id)
    if is_walked:
        deps.events.walk_wanted(saved.id)
    elif last_phase is not report.phase:
        nudge(deps, saved)
    return True


def _check_rate(deps: Deps, session: Session, now: datetime) -> None:
    wait_s = deps.report_rates.take(session.id, now.timestamp())
    if wait_s:
        raise errors.LimitReached(
            f"a session sends at most {REPORT_RATE.per_s:g} reports a second: merge them",
            code="too_many_reports",
            retry_after_s=wait_s,
            limit=REPORT_RATE.per_s,
        )


def _within_rate(
    deps: Deps, session_id: SessionId, lines: Sequence[str], now: datetime
) -> list[str]:
    """The lines up to the session's rate. The last one says how many were dropped, if any."""
    for count, line in enumerate(lines):
        size = len(line.encode()) + _LINE_OVERHEAD_BYTES
        if deps.log_rates.take(session_id, now.timestamp(), size):
            dropped = len(lines) - count
            limit = f"{LOG_RATE.per_s / 1024:g} KiB a second"
            return [*lines[:count], f"[{dropped} lines dropped: an app logs at most {limit}]"]
    return list(lines)


def _last_phase(session: Session, sender: SandboxId) -> Phase | None:
    report = session.report
    if sender != session.sandbox_id:
        report = session.move.report if session.move is not None else None
    return report.phase if report is not None else None
