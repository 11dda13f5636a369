"""Moves a READY session to another host, its app being served all the while. Called by converge."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.domain import errors
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.domain.sessions import planner, steps
from orchestrator.domain.sessions.session import Session
from orchestrator.services import writes
from orchestrator.services.deps import Deps
from orchestrator.services.pool import claims

_AGAIN_S = 2.0  # when no host has room for it now, or its start there failed
_VERIFY_TIMEOUT_S = 3.0
_VERIFY_AGAIN_S = 0.3


def relocate(deps: Deps, found: Session, now: datetime) -> bool:
    """A second sandbox on another host, warm if there is one. The session stays READY where it
    is; without room it is looked at again, and then who refused it may be asked again too."""
    looking = replace(found, due_at=planner.look_again_at(now))
    claimed = deps.store.sandboxes.claim_successor(looking, now)
    if claimed is not None:
        deps.events.inbox_changed(claimed[1].id)
        deps.events.pool_changed()
        return False
    try:
        claims.place_successor(deps, looking, now)
    except errors.NoCapacity:
        writes.look_again(deps, replace(found, refused_by=()), _AGAIN_S)
        return found.turns.next is not None  # no reason for a change to wait as well
    deps.events.routes_changed()
    return True


def switch(deps: Deps, found: Session, box: Sandbox, now: datetime) -> bool:
    """Healthy there by its own name first; then the session's name goes over."""
    if not deps.probe.answers(box.slug, _VERIFY_TIMEOUT_S):
        writes.look_again(deps, found, _VERIFY_AGAIN_S)
        return False
    assert found.move is not None
    # Reports are numbered by each agent for itself: from here on the new one's count.
    arrived = replace(
        found,
        report=found.move.report,
        turns=found.turns.elsewhere(),
        refused_by=(),
        due_at=planner.look_again_at(now),
    )
    deps.store.sandboxes.switch(arrived, now)
    deps.events.routes_changed()
    return True


def let_go(deps: Deps, found: Session, step: steps.LetGo, now: datetime) -> None:
    """The sandbox first: it is then the pool's to clear, whatever becomes of us."""
    if step.sandbox is not None:
        claims.abandon(deps, step.sandbox, step.reason)
    again = now + timedelta(seconds=_AGAIN_S)
    writes.save(deps, replace(found, move=None, due_at=again, updated_at=now), quiet=True)
