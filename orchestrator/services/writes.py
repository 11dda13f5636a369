"""How converge writes a session: under its revision, telling whoever watches it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestrator.domain import errors
from orchestrator.domain.sessions.session import Session, SessionState
from orchestrator.services.deps import Deps


def save(deps: Deps, changed: Session, *, quiet: bool = False) -> None:
    """Write it. `quiet`: nobody but us has a use for what has changed. Raises StaleWrite."""
    deps.store.sessions.save(changed)
    if not quiet:
        deps.events.session_changed(changed.id)


def look_again(deps: Deps, found: Session, after_s: float) -> None:
    """Make the session due again after a while, unless it is queued: then it must stay due."""
    if found.state is SessionState.QUEUED:
        return
    at = deps.clock.now() + timedelta(seconds=after_s)
    try:
        save(deps, replace(found, due_at=at), quiet=True)
    except errors.StaleWrite:
        return  # somebody wrote meanwhile, and nudged
