"""Asks an app's public URL without holding up a worker. Called by converge.

The app may hang, and on purpose. So a probe is short, and each one that fails makes the pause
before the next longer. Only one worker makes a second probe: it takes a lease before.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.domain.sessions import planner
from orchestrator.domain.sessions.session import Session
from orchestrator.services import writes
from orchestrator.services.deps import Deps

_TIMEOUT_S = 0.5
_LEASE_S = 1.0  # longer than a probe; a worker that is killed delays the next one by this


def lease(deps: Deps, session: Session, now: datetime) -> Session:
    """Make the session due later, so that no other worker probes it meanwhile.

    A first probe needs no lease: it follows a nudge, of which there is one. This saves the write
    before nearly every READY. Raises errors.StaleWrite: another worker was faster.
    """
    if session.probes == 0:
        return session
    due_at = now + timedelta(seconds=_LEASE_S)
    return deps.store.sessions.save(replace(session, due_at=due_at))


def answers(deps: Deps, session: Session, sandbox: Sandbox) -> bool:
    """Whether the app answers at the sandbox's URL. If not, schedule the next probe."""
    if deps.probe.answers(sandbox.slug, _TIMEOUT_S):
        return True
    failed = session.probes + 1
    writes.reschedule(deps, replace(session, probes=failed), planner.probe_pause_s(failed))
    return False
