"""Steps: what to do next for one session, as values.

`planner.plan` chooses a step, `services.sessions.converge` carries it out and logs its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.domain.sessions.session import Failure, SessionState


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Do nothing until `until`, or until a nudge."""

    until: datetime


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """The session has ended: no step will ever follow."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Get a sandbox: claim a warm one, or place a new one on a host with a free slot."""


@dataclass(frozen=True, kw_only=True)
class Advance:
    """Move the session to the state that its agent reports."""

    to: SessionState


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Have the app opened at the sandbox's public address. The process `agents` does that."""

    sandbox: Sandbox


@dataclass(frozen=True, kw_only=True)
class Accept:
    """The app was well at its public address: the session is READY."""


@dataclass(frozen=True, kw_only=True)
class Fail:
    """Record why this attempt failed. Clean-up follows."""

    failure: Failure
    shows_log: bool = False  # whether the last lines of the app's log belong to the message


@dataclass(frozen=True, kw_only=True)
class Destroy:
    """Enter DESTROYING, and let the sandbox go, which becomes STOPPING. Clean-up follows."""

    sandbox: Sandbox | None  # None: there is none, or it is on its way already
    reason: str


@dataclass(frozen=True, kw_only=True)
class Retire:
    """The session ends: its sandbox becomes STOPPING. The clear loop removes it meanwhile."""

    sandbox: Sandbox
    reason: str


@dataclass(frozen=True, kw_only=True)
class Abandon:
    """The session goes on without this sandbox: leave it to the pool, and keep the slug."""

    sandbox: Sandbox
    reason: str


@dataclass(frozen=True, kw_only=True)
class Requeue:
    """Return to QUEUED and run attempt number `attempt`.

    That is the next attempt, the same one on another host, or 1 to recover a lost app.
    """

    attempt: int
    pause_s: float = 0.0  # before the session may get a sandbox; converge spreads it
    crashes: tuple[datetime, ...] | None = None  # what the session remembers; None: as before
    lost_on: Mapping[HostId, datetime] | None = None  # hosts that come last; None: as before
    lost: str = ""  # how a lost app lost its sandbox, for the app's log


@dataclass(frozen=True, kw_only=True)
class Relocate:
    """The host is being drained: get a second sandbox on another host and start the app there."""


@dataclass(frozen=True, kw_only=True)
class Switch:
    """The app was well in its second sandbox: lead the public URL there."""

    sandbox: Sandbox


@dataclass(frozen=True, kw_only=True)
class EndMove:
    """End the move and give up its other sandbox. The reconcile loop removes that sandbox."""

    sandbox: Sandbox | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class BeginChange:
    """Let the agent carry out the next change, while the app goes on running."""


@dataclass(frozen=True, kw_only=True)
class EndChange:
    """The current change has ended: return to READY with its version, or with the one before."""

    failure: Failure | None = None  # None: its version is served


@dataclass(frozen=True, kw_only=True)
class Finish:
    """Enter the last state: DESTROYED or FAILED."""

    state: SessionState


Step = (
    Wait
    | Nothing
    | Claim
    | Advance
    | Walk
    | Accept
    | Fail
    | Destroy
    | Retire
    | Abandon
    | Requeue
    | Relocate
    | Switch
    | EndMove
    | BeginChange
    | EndChange
    | Finish
)
