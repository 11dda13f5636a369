"""Nudges: telling the workers to look at a session. A lost one costs time, never a session."""

from __future__ import annotations

from orchestrator.domain import errors
from orchestrator.domain.access import queue_for
from orchestrator.domain.session import Session, SessionState
from orchestrator.services import claims
from orchestrator.services.deps import Deps

_NUDGES_PER_PASS = 100


def nudge(deps: Deps, found: Session) -> bool:
    """Ask for a look at this session. False when the queue is away: the nudge loop asks again."""
    try:
        deps.queue.nudge(found.id, queue_for(found))
    except errors.QueueUnavailable:
        return False
    return True


def nudge_due(deps: Deps) -> int:
    """Nudge every session that is due: all that are under way, and as many of those queued as
    there is room for. Returns how many. Makes lost nudges harmless."""
    due = deps.store.sessions.due(deps.clock.now(), limit=_NUDGES_PER_PASS)
    waiting = [found for found in due if found.state is SessionState.QUEUED]
    under_way = [found for found in due if found.state is not SessionState.QUEUED]
    # One more than there is room for: the count and the claims don't happen at the same instant.
    room = claims.available(deps.store, len(waiting)) if waiting else 0
    heads = waiting[: room + 1]
    return sum(nudge(deps, found) for found in (*under_way, *heads))
