"""Sends nudges to the workers. A lost nudge costs time, never a session: see services/sessions/due.

Called by every service that makes a session due.
"""

from __future__ import annotations

from orchestrator.domain.sessions.priority import Queue, queue_for
from orchestrator.domain.sessions.session import Session
from orchestrator.services.deps import Deps


def nudge(deps: Deps, session: Session, queue: Queue | None = None) -> None:
    """Ask a worker to converge this session."""
    deps.queue.nudge(session.id, queue or queue_for(session))
