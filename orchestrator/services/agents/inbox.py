"""Answers the agents' requests for their inbox: what a sandbox should run. Called by the agent app.

Agents poll the inbox, so each visit also shows that the agent is alive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.people.tokens import SessionGrant
from orchestrator.domain.pool.host import STARTS_AT_ONCE
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.services.agents import access, assignments
from orchestrator.services.deps import Deps

# At most as long as the store skips writing visits: a second visit must not look like the first.
_FIRST_VISIT_WITHIN = timedelta(seconds=10)


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """The answer to one visit."""

    assignment: dict[str, Any] | None  # JSON for the agent; None: nothing new


def visit(deps: Deps, sandbox_id: SandboxId, have: str) -> Inbox:
    """Record a visit, and return the sandbox's assignment unless it is `have`, its present one.

    Raises errors.Forbidden (sandbox_retired) if the sandbox is to end: its agent then exits.
    """
    now = deps.clock.now()
    try:
        sandbox = deps.store.sandboxes.agent_seen(sandbox_id, now)
    except errors.NotFound as error:
        raise _retired(sandbox_id) from error
    if sandbox.agent_seen_at == now and _has_just_started(sandbox, now):
        _record_start(deps, sandbox)
    if sandbox.state is not SandboxState.CREATING and sandbox.state_since == now:
        deps.events.pool_changed()  # this visit ended a start: the host can begin another one
    return peek(deps, sandbox, have)


def _has_just_started(sandbox: Sandbox, now: datetime) -> bool:
    """Whether this visit is the sandbox's first.

    A sandbox whose route isn't live yet stays CREATING after its first visit. Its later visits are
    not written within the first seconds.
    """
    is_waiting = (
        sandbox.state is SandboxState.CREATING and now - sandbox.created_at < _FIRST_VISIT_WITHIN
    )
    return is_waiting or (sandbox.state is not SandboxState.CREATING and sandbox.state_since == now)


def _record_start(deps: Deps, sandbox: Sandbox) -> None:
    """Add the duration of this start to the host's start curve, unless it has waited in line."""
    if sandbox.started_with > STARTS_AT_ONCE:
        return
    took_s = (deps.clock.now() - sandbox.created_at).total_seconds()
    deps.store.hosts.change(
        sandbox.host_id,
        lambda host: replace(host, starts=host.starts.with_start(sandbox.started_with, took_s)),
    )


def peek(deps: Deps, sandbox: Sandbox, have: str) -> Inbox:
    """The sandbox's assignment unless it is `have`. Does not record a visit.

    Raises errors.Forbidden (sandbox_retired).
    """
    if sandbox.state in {SandboxState.STOPPING, SandboxState.BROKEN, SandboxState.GONE}:
        raise _retired(sandbox.id)
    if sandbox.state is not SandboxState.CLAIMED or sandbox.session_id is None:
        return Inbox(assignment=None)
    session = deps.store.sessions.get(sandbox.session_id)
    grant = SessionGrant(
        session_id=session.id,
        attempt=session.attempt,
        sandbox_id=sandbox.id,
        change=access.change_of(session, sandbox.id),
    )
    if not access.is_current(session, grant) or have == assignments.assignment_id(grant):
        return Inbox(assignment=None)
    if grant.change and not session.is_changing:
        return Inbox(assignment=None)  # the change ended before the sandbox heard of it
    return Inbox(assignment=assignments.build_assignment(deps, session, grant).as_json())


def _retired(sandbox_id: SandboxId) -> errors.Forbidden:
    return errors.Forbidden(f"{sandbox_id} is no longer wanted", code="sandbox_retired")
