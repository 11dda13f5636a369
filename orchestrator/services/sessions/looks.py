"""A look at one session: converge it, and log what came of it. Workers and the daemon take them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from datetime import timedelta

from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId
from orchestrator.services import writes
from orchestrator.services.deps import Deps
from orchestrator.services.sessions.converge import converge
from orchestrator.slim import structlog

log = structlog.get_logger()

_PAUSES_S = (1.0, 60.0)  # after a look that crashed: the shortest and the longest


def look(deps: Deps, session_id: SessionId) -> None:
    """Converge a session. One whose look crashes is left alone for a while; the error goes on to
    the caller, who logs it."""
    started_at = time.perf_counter()
    try:
        outcome = converge(deps, session_id)
    except errors.Temporary:
        raise  # the database is away: nothing is wrong with the session, and nothing can be saved
    except Exception:
        _back_off(deps, session_id)
        raise
    log.info(
        "session_converged",
        session=session_id,
        state=outcome.state,
        steps=outcome.steps,
        waits_for=outcome.waits_for or None,
        ms=round((time.perf_counter() - started_at) * 1000, 1),
    )


def _back_off(deps: Deps, session_id: SessionId) -> None:
    """Make the session due later: the next look will probably crash as this one did.

    It pauses for as long as nothing has become of it, so the pauses double. That needs no counter,
    which several workers and the daemon would have to share.
    """
    with contextlib.suppress(errors.SpawnError):  # somebody else has written it, or can't
        session = deps.store.sessions.get(session_id)
        now = deps.clock.now()
        shortest_s, longest_s = _PAUSES_S
        pause_s = min(max(shortest_s, (now - session.updated_at).total_seconds()), longest_s)
        paused = replace(session, due_at=now + timedelta(seconds=pause_s))
        writes.save(deps, paused, quiet=True)
        log.warning("session_backed_off", session=session_id, pause_s=round(pause_s, 1))
