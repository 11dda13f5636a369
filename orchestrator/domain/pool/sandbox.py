"""The Sandbox: one container on one host, its state machine and what makes it warm."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.domain import errors
from orchestrator.domain.ids import HostId, SandboxId, SessionId, Slug


class SandboxState(enum.StrEnum):
    """Where a sandbox is. It holds its slot and its port in every state but GONE."""

    CREATING = "creating"  # intent committed; the container may or may not exist yet
    WARM = "warm"  # runs, its agent has dialled home, its route is live, nobody has it
    CLAIMED = "claimed"  # belongs to a session
    STOPPING = "stopping"  # its route is being withdrawn, then its container removed
    BROKEN = "broken"  # found wanting by a diagnosis; to be retired
    GONE = "gone"  # container, route, port and token are no more


TRANSITIONS: Mapping[SandboxState, frozenset[SandboxState]] = {
    SandboxState.CREATING: frozenset(
        {SandboxState.WARM, SandboxState.CLAIMED, SandboxState.STOPPING, SandboxState.BROKEN}
    ),
    SandboxState.WARM: frozenset(
        {SandboxState.CLAIMED, SandboxState.STOPPING, SandboxState.BROKEN}
    ),
    SandboxState.CLAIMED: frozenset({SandboxState.STOPPING, SandboxState.BROKEN}),
    SandboxState.BROKEN: frozenset({SandboxState.STOPPING}),
    SandboxState.STOPPING: frozenset({SandboxState.GONE}),
    SandboxState.GONE: frozenset(),
}

ROUTED_STATES = frozenset({SandboxState.CREATING, SandboxState.WARM, SandboxState.CLAIMED})
LIVE_STATES = frozenset(SandboxState) - {SandboxState.GONE}


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """One row of the sandboxes table."""

    id: SandboxId
    host_id: HostId
    session_id: SessionId | None  # None: made for the warm pool and not claimed yet
    state: SandboxState
    slug: Slug  # the session's own when it was made for one
    port: int  # published on the host's address; ours alone until GONE
    image: str  # reference it was created from
    container_id: str | None  # None until Docker answered
    agent_seen_at: datetime | None  # last time the agent asked its inbox
    routed: bool  # the proxy confirmed a table with this route in it
    reason: str  # why it is BROKEN or STOPPING, for people
    created_at: datetime
    state_since: datetime
    started_with: int = 1  # starts in progress on its host when it was placed, itself included
    generation: int = 1  # of its host when it was placed: a host that was lost has a later one

    def transition(self, to: SandboxState, now: datetime, reason: str = "") -> Sandbox:
        """The sandbox in its next state. Raises IllegalMove when the table has no such
        transition."""
        if to not in TRANSITIONS[self.state]:
            raise errors.IllegalMove(
                f"sandbox {self.id} can't go from {self.state} to {to}"
                f" (since {self.state_since:%H:%M:%S}, {self.reason or 'no reason given'})"
            )
        return replace(self, state=to, state_since=now, reason=reason or self.reason)


def settle(sandbox: Sandbox, now: datetime) -> Sandbox:
    """CREATING ends by itself when its facts are in.

    For a session it is enough that the agent dialled home. A warm sandbox also needs its route
    live, for a claim promises that the URL answers without a reload.
    """
    if sandbox.state is not SandboxState.CREATING or sandbox.agent_seen_at is None:
        return sandbox
    if sandbox.session_id is not None:
        return sandbox.transition(SandboxState.CLAIMED, now)
    if sandbox.routed:
        return sandbox.transition(SandboxState.WARM, now)
    return sandbox
