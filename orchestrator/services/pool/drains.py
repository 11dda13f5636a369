"""Drains a host: its warm sandboxes go, and its READY sessions move, a few at a time.

A session that has nowhere to go now holds up no other. Called by the drain loop, and by the API,
which tells operators why a session is still there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.host import Drain, Host
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.rooms import Allotment, Demand
from orchestrator.domain.sessions.session import Session, SessionState
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.pool import claims

_MOVES_AT_ONCE = 6  # per host, so that its sessions don't take all warm sandboxes at a stroke
# A session that is due sooner gets a look without us, for example after a move that failed.
_RESTING_S = 10.0


def continue_drain(deps: Deps, host: Host) -> int:
    """Retire the warm sandboxes of a draining host, and have some of its READY sessions move.

    Returns how many sandboxes it touched.
    """
    sandboxes = deps.store.sandboxes.list(host_id=host.id)
    warm = [sandbox for sandbox in sandboxes if sandbox.state is SandboxState.WARM]
    for sandbox in warm:
        try:
            claims.retire(deps, sandbox, "its host is being drained")
        except errors.StaleWrite:
            continue  # another process wrote first: the next pass looks again
    if host.drain is not Drain.MOVE:
        return len(warm)
    leaving = _choose_leaving(deps, _ready_sessions(deps, sandboxes), deps.clock.now())
    for session in leaving:
        _request_move(deps, session)
    return len(warm) + len(leaving)


def reasons_to_stay(
    deps: Deps, host: Host, sandboxes: Sequence[Sandbox]
) -> Mapping[SandboxId, str]:
    """Why READY sessions of a draining host don't move now, for people, by their sandbox."""
    if host.drain is not Drain.MOVE:
        return {}
    kinds = deps.store.hosts.kinds()
    allotment = Allotment(kinds)
    reasons = {}
    for session in _ready_sessions(deps, sandboxes):
        if session.move is not None or session.sandbox_id is None:
            continue
        where = f"host with {session.wish}" if session.wish else "host"
        if session.bundle is None:
            reasons[session.sandbox_id] = "can't move: it has no version that could start elsewhere"
        elif not any(kind.accepts_claims and kind.meets(session.wish) for kind in kinds):
            reasons[session.sandbox_id] = f"can't move: no other {where} takes sandboxes now"
        elif not allotment.take(Demand(wish=session.wish)):
            reasons[session.sandbox_id] = f"waits to move: no other {where} has room now"
    return reasons


def _ready_sessions(deps: Deps, sandboxes: Sequence[Sandbox]) -> Sequence[Session]:
    """The READY sessions in these sandboxes."""
    session_ids = [sandbox.session_id for sandbox in sandboxes if sandbox.session_id is not None]
    sessions = deps.store.sessions.get_many(session_ids)
    return [session for session in sessions if session.state is SessionState.READY]


def _choose_leaving(deps: Deps, sessions: Sequence[Session], now: datetime) -> Sequence[Session]:
    """The sessions to wake, so that they move: as many as may move at once, in order.

    Those under way count. Those that no other host has room for don't, and aren't woken.
    """
    movable = [session for session in sessions if session.bundle is not None]
    waiting = [session for session in movable if session.move is None]
    under_way = len(movable) - len(waiting)
    if not waiting or under_way >= _MOVES_AT_ONCE:
        return []
    allotment = Allotment(deps.store.hosts.kinds())
    leaving = []
    for session in waiting:
        if not allotment.take(Demand(wish=session.wish)):
            continue
        if (session.due_at - now).total_seconds() >= _RESTING_S:
            leaving.append(session)
        under_way += 1
        if under_way == _MOVES_AT_ONCE:
            break
    return leaving


def _request_move(deps: Deps, session: Session) -> None:
    """Wake a session so that converge moves it."""
    try:
        woken = deps.store.sessions.save(replace(session, due_at=deps.clock.now()))
    except errors.StaleWrite:
        return  # another process wrote first: the next pass looks again
    nudge(deps, woken)
