"""Walks an app's public address without holding up a worker. Called by converge.

The app may hang, and on purpose. So a walk is short, and each one that fails makes the pause before
the next longer. Only one worker makes a second one: it takes a lease before.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.contract.health import Condition, Finding
from orchestrator.contract.wire.reports import FailureCode
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.domain.sessions import planner
from orchestrator.domain.sessions.session import Failure, Session
from orchestrator.services import writes
from orchestrator.services.deps import Deps

_TIMEOUT_S = 0.5
_LEASE_S = 1.0  # longer than a walk; a worker that is killed delays the next one by this
_UNWELL_MAX = 5  # walks, over some seconds: an app may be busy with its first requests
_SLACK = timedelta(seconds=10)  # for an app that we couldn't reach, once we can


def lease(deps: Deps, session: Session, now: datetime) -> Session:
    """Make the session due later, so that no other worker probes it meanwhile.

    A first walk needs no lease: it follows a nudge, of which there is one. This saves the write
    before nearly every READY. Raises errors.StaleWrite: another worker was faster.
    """
    if session.probes == 0:
        return session
    due_at = now + timedelta(seconds=_LEASE_S)
    return deps.store.sessions.save(replace(session, due_at=due_at))


def walk(deps: Deps, sandbox: Sandbox) -> Finding:
    """Walk the sandbox's public address."""
    return deps.probe.walk(sandbox.slug, _TIMEOUT_S)


def failure_of(session: Session, finding: Finding) -> Failure | None:
    """Why the app is given up after this walk; None: it is not, or not yet."""
    if finding.condition is not Condition.UNWELL or session.probes + 1 < _UNWELL_MAX:
        return None
    message = f"At its public address, the app isn't well: {finding.problem}"
    return Failure(code=FailureCode.APP_NOT_HEALTHY.value, message=message)


def schedule_next(deps: Deps, session: Session, finding: Finding) -> None:
    """Have the app walked again soon, after a walk that didn't show that it is well."""
    failed = session.probes + 1
    pause_s = planner.probe_pause_s(failed)
    deadline_at = session.deadline_at
    if finding.condition is Condition.UNREACHED and deadline_at is not None:
        # What is between us and the app is ours: that time doesn't count as the app's.
        slack_ends_at = deps.clock.now() + timedelta(seconds=pause_s) + _SLACK
        deadline_at = max(deadline_at, slack_ends_at)
    later = replace(session, probes=failed, deadline_at=deadline_at)
    writes.reschedule(deps, later, pause_s)
