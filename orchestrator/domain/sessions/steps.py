"""What is to be done next for one session, as values. The planner chooses; converge carries out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.domain.sessions.session import Failure, SessionState


@dataclass(frozen=True, kw_only=True)
class Rest:
    """Nothing to do until `until`, or until a nudge."""

    until: datetime


@dataclass(frozen=True, kw_only=True)
class Done:
    """Nothing to do ever again."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Get a sandbox: a warm one, or a new one where there is room."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Create and start the container of a sandbox whose intent is committed."""

    sandbox: Sandbox


@dataclass(frozen=True, kw_only=True)
class Advance:
    """Move the session to where its agent says it is."""

    to: SessionState


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Ask the public URL; READY if it answers."""

    sandbox: Sandbox


@dataclass(frozen=True, kw_only=True)
class Fail:
    """Write down why this attempt came to nothing; clean-up follows."""

    failure: Failure


@dataclass(frozen=True, kw_only=True)
class BeginEnd:
    """Enter DESTROYING."""


@dataclass(frozen=True, kw_only=True)
class Retire:
    """Take the sandbox out of the route table: STOPPING."""

    sandbox: Sandbox
    reason: str


@dataclass(frozen=True, kw_only=True)
class Remove:
    """The withdrawal is confirmed: remove the container, give the slot and the port back."""

    sandbox: Sandbox


@dataclass(frozen=True, kw_only=True)
class Requeue:
    """Back to QUEUED: for the next attempt, for the same one on another host, or for the first one
    of a recovery."""

    attempt: int


@dataclass(frozen=True, kw_only=True)
class Relocate:
    """Its host is being drained: get a second sandbox elsewhere and have the app started there."""


@dataclass(frozen=True, kw_only=True)
class Switch:
    """The app runs in its second sandbox: if it answers there too, send the URL there."""

    sandbox: Sandbox


@dataclass(frozen=True, kw_only=True)
class LetGo:
    """Be done with the other sandbox of a move: the pool clears it."""

    sandbox: Sandbox | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class BeginChange:
    """Have the sandbox carry out the next change, beside the app that runs."""


@dataclass(frozen=True, kw_only=True)
class EndChange:
    """The change whose turn it was came to nothing: READY with what was there before."""

    failure: Failure


@dataclass(frozen=True, kw_only=True)
class Finish:
    """The last move: DESTROYED or FAILED."""

    state: SessionState


Step = (
    Rest
    | Done
    | Claim
    | Start
    | Advance
    | Verify
    | Fail
    | BeginEnd
    | Retire
    | Remove
    | Requeue
    | Relocate
    | Switch
    | LetGo
    | BeginChange
    | EndChange
    | Finish
)
