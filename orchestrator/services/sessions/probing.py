"""Walks an app's public address without holding up a worker. Called by converge.

The app may hang, and on purpose. It may also be slow with its first page. So a walk is short at
first, each one that fails makes the next one longer, and the pause before it in proportion: one app
holds a worker for a tenth of the time at most. Only one worker makes a second walk: it takes a
lease before.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.contract.health import Condition, Finding
from orchestrator.contract.wire.reports import FailureCode
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.domain.sessions import planner
from orchestrator.domain.sessions.session import Failure, Session, SessionState
from orchestrator.services import writes
from orchestrator.services.deps import Deps

_PATIENCE_S = (0.5, 0.5, 1.0, 2.0, 3.0)  # of the walks in turn, and the last one of all others
_REST = 9  # pauses after a walk without an answer, in walks; the first two cost little
_LEASE_S = 0.5  # more than a walk; a worker that is killed delays the next one by this
_QUICK_WALKS = 2
_BEFORE_DEPLOYING = frozenset({SessionState.PROVISIONING, SessionState.GENERATING})
_UNWELL_MAX = 5  # walks, over some seconds: an app may be busy with its first requests
_SLACK = timedelta(seconds=10)  # for an app that we couldn't reach, once we can


def _patience_s(session: Session) -> float:
    """How long the next walk may take."""
    return _PATIENCE_S[min(session.probes, len(_PATIENCE_S) - 1)]


def lease(deps: Deps, session: Session, now: datetime) -> Session:
    """Make the session due later, so that no other worker probes it meanwhile.

    A first walk needs no lease: it follows a nudge, of which there is one. This saves the write
    before nearly every READY. Raises errors.StaleWrite: another worker was faster.
    """
    if session.probes == 0:
        return session
    due_at = now + timedelta(seconds=_patience_s(session) + _LEASE_S)
    return deps.store.sessions.save(replace(session, due_at=due_at))


def walk(deps: Deps, session: Session, sandbox: Sandbox) -> Finding:
    """Walk the sandbox's public address."""
    return deps.probe.walk(sandbox.slug, _patience_s(session))


def failure_of(session: Session, finding: Finding) -> Failure | None:
    """Why the app is given up after this walk; None: it is not, or not yet."""
    if finding.condition is not Condition.UNWELL or session.probes + 1 < _UNWELL_MAX:
        return None
    message = f"At its public address, the app isn't well: {finding.problem}"
    return Failure(code=FailureCode.APP_NOT_HEALTHY.value, message=message)


def schedule_next(deps: Deps, session: Session, finding: Finding) -> None:
    """Have the app walked again soon, after a walk that didn't show that it is well.

    An app that runs and doesn't answer is one that is starting: it has the time that this may take.
    """
    now = deps.clock.now()
    failed = session.probes + 1
    pause_s = planner.probe_pause_s(failed)
    later = session
    if finding.condition is Condition.SILENT:
        if failed > _QUICK_WALKS:
            pause_s = max(pause_s, _REST * _patience_s(session))
        if session.state in _BEFORE_DEPLOYING:
            limit_at = planner.deadline_for(SessionState.DEPLOYING, now, deps.policy.deadlines)
            later = replace(session.transition(SessionState.DEPLOYING, now), deadline_at=limit_at)
    elif finding.condition is Condition.UNREACHED and session.deadline_at is not None:
        # What is between us and the app is ours: that time doesn't count as the app's.
        slack_ends_at = now + timedelta(seconds=pause_s) + _SLACK
        later = replace(session, deadline_at=max(session.deadline_at, slack_ends_at))
    writes.reschedule(
        deps, replace(later, probes=failed), pause_s, quiet=later.state is session.state
    )
