"""A look at one session: converge it, and log what came of it. Workers and the daemon take them."""

from __future__ import annotations

import time

from orchestrator.domain.ids import SessionId
from orchestrator.services.deps import Deps
from orchestrator.services.sessions.converge import converge
from orchestrator.slim import structlog

log = structlog.get_logger()


def look(deps: Deps, session_id: SessionId) -> None:
    started_at = time.perf_counter()
    outcome = converge(deps, session_id)
    log.info(
        "session_converged",
        session=session_id,
        state=outcome.state,
        steps=outcome.steps,
        waits_for=outcome.waits_for or None,
        ms=round((time.perf_counter() - started_at) * 1000, 1),
    )
