"""Starts the sandboxes that sessions wait for. Called by the daemon, in a thread for each start.

This blocks for as long as Docker does, so no worker does it. A failed start becomes a fact in the
session's row; converge draws the conclusion.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from orchestrator.domain import errors
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import IN_PROGRESS, Failure, Session
from orchestrator.services import writes
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.pool import claims


def start(deps: Deps, sandbox: Sandbox) -> None:
    """Start the container of a sandbox that was placed for a session.

    Safe to repeat, but only one process may do it at a time. If Docker refuses or doesn't answer,
    the session is told, and no other is sent to a host whose fault it is.
    """
    try:
        claims.start(deps, sandbox)
    except errors.EngineUnavailable as error:
        claims.mark_suspect(deps, sandbox.host_id, str(error))
        _give_up(deps, sandbox, error)
    except errors.SandboxRefused as error:
        claims.record_refusal(deps, sandbox.host_id, error)
        _give_up(deps, sandbox, error)


def _give_up(deps: Deps, sandbox: Sandbox, error: errors.Temporary) -> None:
    """Tell the session. Whoever wrote it meanwhile goes first."""
    while True:
        try:
            session = _find_session(deps, sandbox)
            if session is None:
                return
            if session.sandbox_id == sandbox.id:
                _fail_attempt(deps, session, sandbox, error)
            else:
                _fail_move(deps, session, sandbox, error)
        except errors.TermOver:
            raise
        except errors.StaleWrite:
            continue
        nudge(deps, session)
        return


def _find_session(deps: Deps, sandbox: Sandbox) -> Session | None:
    """The session that waits for this sandbox. None: it doesn't wait any more."""
    if sandbox.session_id is None:
        return None
    try:
        session = deps.store.sessions.get(sandbox.session_id)
    except errors.NotFound:
        return None
    if session.sandbox_id == sandbox.id:
        is_waiting = session.state in IN_PROGRESS and session.failure is None
    else:
        is_waiting = session.move is not None and session.move.sandbox_id == sandbox.id
    return session if is_waiting else None


def _fail_attempt(deps: Deps, session: Session, sandbox: Sandbox, error: errors.Temporary) -> None:
    """Fail the attempt.

    It is not counted if Docker didn't answer, if the host lacked what it had when it was admitted,
    or has no port or no room on its disk left, or as long as another host may take the session.
    """
    refused_by, counts = session.refused_by, False
    if isinstance(error, errors.SandboxRefused):
        refused_by = (*refused_by, sandbox.host_id)
        if not deps.store.hosts.any_accepts(session.wish, without=refused_by):
            refused_by, counts = (), error.code not in claims.OF_THE_HOST
    failure = Failure(
        code=error.code, message=str(error), permanent=False, counts_as_attempt=counts
    )
    now = deps.clock.now()
    failed = replace(
        session,
        failure=failure,
        refused_by=refused_by,
        due_at=now,
        updated_at=now,
    )
    writes.save(deps, failed)


def _fail_move(deps: Deps, session: Session, sandbox: Sandbox, error: errors.Temporary) -> None:
    """Mark the successor BROKEN, so that converge ends the move. The app goes on where it is."""
    now = deps.clock.now()
    refused_by = session.refused_by
    if isinstance(error, errors.SandboxRefused):
        refused_by = (*refused_by, sandbox.host_id)
    writes.save(deps, replace(session, refused_by=refused_by, due_at=now), quiet=True)
    broken = sandbox.transition(SandboxState.BROKEN, now, str(error)[: claims.REASON_MAX])
    with contextlib.suppress(errors.StaleWrite):  # the move has ended meanwhile
        deps.store.sandboxes.save(broken, expected=SandboxState.CREATING)
