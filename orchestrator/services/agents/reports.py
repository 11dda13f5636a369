"""What agents report of their assignments: facts, of which none moves a session.

Called by the agent app. A fact that changes what converge may do is followed by a nudge.
"""

from __future__ import annotations

from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.sessions.reports import accept_report, accept_successor_report
from orchestrator.domain.sessions.session import Phase, Report, Session
from orchestrator.services.agents import access
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge


def report(deps: Deps, found: Session, sender: SandboxId, said: Report, lines: list[str]) -> bool:
    """Take what the agent in sandbox `sender` reports as a fact. False when it is late, repeated
    or moot."""
    now = deps.clock.now()
    if lines:
        deps.store.logs.append(found.id, lines, now)
    attempt, change = found.attempt, access.change_of(found, sender)
    while True:
        # What was true of one attempt, place or change must not be taken for another's.
        if found.attempt != attempt or not access.runs_in(found, sender):
            return False
        if access.change_of(found, sender) != change:
            return False
        accept = accept_report
        if sender != found.sandbox_id:
            accept = accept_successor_report
        before = _phase_heard(found, sender)
        changed = accept(found, said, now)
        if changed is None:
            return False
        try:
            saved = deps.store.sessions.save(changed)
        except errors.StaleWrite:
            found = deps.store.sessions.get(found.id)
            continue
        break
    deps.events.session_changed(saved.id)
    if before is not said.phase:
        nudge(deps, saved)
    return True


def _phase_heard(found: Session, sender: SandboxId) -> Phase | None:
    last = found.report
    if sender != found.sandbox_id:
        last = found.move.report if found.move is not None else None
    return last.phase if last is not None else None
