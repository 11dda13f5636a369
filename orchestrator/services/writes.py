"""Writes sessions for converge and its helpers: a compare-and-swap, then an event for watchers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestrator.domain import errors
from orchestrator.domain.sessions.session import Session, SessionState
from orchestrator.services.deps import Deps


def save(deps: Deps, session: Session, *, quiet: bool = False) -> None:
    """Save the session under its revision. `quiet` sends no event: only converge needs the change.

    Raises errors.StaleWrite.
    """
    deps.store.sessions.save(session)
    if not quiet:
        deps.events.session_changed(session.id)


def reschedule(deps: Deps, session: Session, after_s: float, *, quiet: bool = True) -> None:
    """Make the session due again after `after_s` seconds. A QUEUED session stays due at once.

    `quiet`: see `save`.
    """
    if session.state is SessionState.QUEUED:
        return
    due_at = deps.clock.now() + timedelta(seconds=after_s)
    try:
        save(deps, replace(session, due_at=due_at), quiet=quiet)
    except errors.StaleWrite:
        return  # another process wrote the session meanwhile, and nudged it
