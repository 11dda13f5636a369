"""What an agent should do now: the answer to each look into its inbox. Called by the agent app."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.people.tokens import SessionGrant
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.services.agents import access, assignments
from orchestrator.services.deps import Deps

# No longer than the store leaves visits unwritten: a second one can't be taken for the first then.
_FIRST_VISIT_WITHIN = timedelta(seconds=10)


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """Answer to one look into the inbox."""

    assignment: dict[str, Any] | None  # JSON for the agent; None: nothing new


def visit(deps: Deps, sandbox_id: SandboxId, have: str) -> Inbox:
    """One look into the inbox: records the visit, and tells what the sandbox should run.

    Raises errors.Forbidden (sandbox_retired) when the sandbox is to end: its agent then exits.
    """
    now = deps.clock.now()
    try:
        box = deps.store.sandboxes.agent_seen(sandbox_id, now)
    except errors.NotFound as missing:
        raise _retired(sandbox_id) from missing
    if box.agent_seen_at == now and _has_just_started(box, now):
        _learn_start(deps, box)
    if box.state is SandboxState.WARM and box.state_since == now:
        deps.events.pool_changed()  # this visit made it so: who waits may claim it
    return peek(deps, box, have)


def _has_just_started(box: Sandbox, now: datetime) -> bool:
    """Whether this visit is the first. One that still waits for its route comes again, but its next
    visit isn't written within the first seconds."""
    waits = box.state is SandboxState.CREATING and now - box.created_at < _FIRST_VISIT_WITHIN
    return waits or (box.state is not SandboxState.CREATING and box.state_since == now)


def _learn_start(deps: Deps, box: Sandbox) -> None:
    """What its host's start curve learns from a sandbox that has just dialled home."""
    took_s = (deps.clock.now() - box.created_at).total_seconds()
    deps.store.hosts.change(
        box.host_id,
        lambda host: replace(host, starts=host.starts.with_start(box.started_with, took_s)),
    )


def peek(deps: Deps, box: Sandbox, have: str) -> Inbox:
    """What a sandbox should run that it doesn't run yet."""
    if box.state in {SandboxState.STOPPING, SandboxState.BROKEN, SandboxState.GONE}:
        raise _retired(box.id)
    if box.state is not SandboxState.CLAIMED or box.session_id is None:
        return Inbox(assignment=None)
    found = deps.store.sessions.get(box.session_id)
    grant = SessionGrant(
        session_id=found.id,
        attempt=found.attempt,
        sandbox_id=box.id,
        change=access.change_of(found, box.id),
    )
    if not access.is_current(found, grant) or have == assignments.id_of(grant):
        return Inbox(assignment=None)
    if grant.change and not found.changing:
        return Inbox(assignment=None)  # it is over before the sandbox heard of it
    return Inbox(assignment=assignments.of(deps, found, grant))


def _retired(sandbox_id: SandboxId) -> errors.Forbidden:
    return errors.Forbidden(f"{sandbox_id} is no longer wanted", code="sandbox_retired")
