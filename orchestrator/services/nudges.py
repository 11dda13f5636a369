"""Nudges: telling the workers to look at a session. A lost one costs time, never a session."""

from __future__ import annotations

from orchestrator.domain import errors
from orchestrator.domain.people.access import queue_for
from orchestrator.domain.sessions.session import Session
from orchestrator.services.deps import Deps


def nudge(deps: Deps, found: Session) -> bool:
    """Ask for a look at this session. False when the queue is away: the nudge loop asks again."""
    try:
        deps.queue.nudge(found.id, queue_for(found))
    except errors.QueueUnavailable:
        return False
    return True
