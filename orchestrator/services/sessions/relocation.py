"""Moves a READY session to another host while its app stays up. Called by converge.

The session gets a successor: a second sandbox on another host. Once the app answers there, the
session's URL switches to it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.domain import errors
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.domain.sessions import planner
from orchestrator.domain.sessions.session import Session
from orchestrator.services import writes
from orchestrator.services.deps import Deps
from orchestrator.services.pool import claims

_RETRY_S = 2.0  # after the start on the new host failed
# After no host had room. The drain loop wakes the session once one has.
_ROOM_RETRY_S = 30.0


def start_move(deps: Deps, session: Session, now: datetime) -> bool:
    """Get a successor on another host, a warm one if possible. The session stays READY.

    If no host has room it rests, until the drain loop sees room for it; hosts that refused the
    session may then be asked again.

    Returns whether converge has more to do now. Raises errors.StaleWrite.
    """
    if _take_successor(deps, replace(session, due_at=planner.recheck_at(now)), now):
        return False  # the successor's first report brings us back
    writes.reschedule(deps, replace(session, refused_by=()), _ROOM_RETRY_S)
    return session.turns.next_number is not None  # a change need not wait for the move


def _take_successor(deps: Deps, moving: Session, now: datetime) -> bool:
    """Claim or place a successor. Hosts that the session lost one on come last. False: no room."""
    claimed = deps.store.sandboxes.claim_successor(moving, now)
    if claimed is not None:
        _, successor = claimed
        deps.events.inbox_changed(successor.id)
        deps.events.pool_changed()
        return True
    try:
        claims.place_successor(deps, moving, now)
    except errors.NoCapacity:
        if not moving.lost_on or claims.has_room_elsewhere(deps, moving):
            return False
        return _take_successor(deps, replace(moving, lost_on={}), now)
    deps.events.routes_changed()  # the daemon publishes its route and starts its container
    return True


def switch_to_successor(deps: Deps, session: Session, now: datetime) -> None:
    """Send the session's URL to the successor: the app is well there, under its own slug.

    Raises errors.StaleWrite.
    """
    assert session.move is not None
    # Each agent numbers its own reports. From here on the successor's reports count.
    moved = replace(
        session,
        report=session.move.report,
        turns=session.turns.on_new_sandbox(),
        refused_by=(),
        due_at=planner.recheck_at(now),
        walked=None,
    )
    deps.store.sandboxes.switch(moved, now)
    deps.events.app_switched()


def end_move(
    deps: Deps, session: Session, sandbox: Sandbox | None, reason: str, now: datetime
) -> None:
    """Abandon the other sandbox of a move, and go on without it. Raises errors.StaleWrite."""
    due_at = now + timedelta(seconds=_RETRY_S)
    settled = replace(session, move=None, due_at=due_at, updated_at=now, walked=None)
    if sandbox is None:
        writes.save(deps, settled, quiet=True)
    else:
        claims.abandon(deps, settled, sandbox, reason)
