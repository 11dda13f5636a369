"""The Sandbox: one container on one host, with its state machine."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.domain import errors
from orchestrator.domain.ids import HostId, SandboxId, SessionId, Slug


class SandboxState(enum.StrEnum):
    """The state of a sandbox. It holds a slot and a port in every state but GONE."""

    CREATING = "creating"  # its row is committed; its container may not exist yet
    WARM = "warm"  # runs, its agent has connected, its route is live; no session has it
    CLAIMED = "claimed"  # belongs to a session
    STOPPING = "stopping"  # its route is withdrawn, then its container is removed
    BROKEN = "broken"  # a diagnosis or a lost host has broken it; it will be retired
    GONE = "gone"  # container and route are removed, port and slot are free


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


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """One row of the sandboxes table."""

    id: SandboxId
    host_id: HostId
    session_id: SessionId | None  # None: created for the warm pool and not claimed yet
    state: SandboxState
    slug: Slug  # the session's, if it was created for one
    port: int  # published on the host's address; no other sandbox gets it until GONE
    image: str  # reference of the image it runs
    container_id: str | None  # None until Docker has started it
    agent_seen_at: datetime | None  # when its agent last polled its inbox
    routed: bool  # the proxy has confirmed a table that holds this route
    reason: str  # why it is BROKEN or STOPPING, for people
    created_at: datetime
    state_since: datetime
    started_with: int = 1  # starts in progress on its host when it was placed, itself included
    generation: int = 1  # its host's when it was placed; smaller than that now: lost with the host
    ended_by_host: bool = False  # its engine, its host or a person ended it, and not its app
    raised: bool = False  # it has, or may have, the CPU limit of a start; see cpu_limits

    def transition(self, to: SandboxState, now: datetime, reason: str = "") -> Sandbox:
        """The sandbox in state `to`.

        Raises errors.IllegalTransition if TRANSITIONS doesn't allow it.
        """
        if to not in TRANSITIONS[self.state]:
            raise errors.IllegalTransition(
                f"sandbox {self.id} can't go from {self.state} to {to}"
                f" (since {self.state_since:%H:%M:%S}, {self.reason or 'no reason given'})"
            )
        return replace(self, state=to, state_since=now, reason=reason or self.reason)


def finish_creating(sandbox: Sandbox, now: datetime) -> Sandbox:
    """End CREATING once its conditions are met; any other sandbox is returned unchanged.

    A session's sandbox is CLAIMED as soon as its agent has connected. One of the warm pool also
    needs a live route before it is WARM, because a claimed app must answer at its URL without
    waiting for the proxy.
    """
    if sandbox.state is not SandboxState.CREATING or sandbox.agent_seen_at is None:
        return sandbox
    if sandbox.session_id is not None:
        return sandbox.transition(SandboxState.CLAIMED, now)
    if sandbox.routed:
        return sandbox.transition(SandboxState.WARM, now)
    return sandbox
