"""What differs between the store and a host's engine, as named values. The reconcile loop asks.

Both sides are read at nearly the same time, the store last: a container without a row is then
never one that is just being made, because the row is committed before the create.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState

_CREATING_MAX = timedelta(seconds=45)
_SILENCE_MAX = timedelta(seconds=75)


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container of ours as its engine describes it."""

    id: str
    sandbox_id: SandboxId  # from its label
    running: bool
    exited: bool = False  # it ran, and never will again: nobody starts ours a second time
    exit_note: str = ""  # exit code and reason, when it isn't running


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """A container that no live sandbox owns: remove it."""

    container: Container


@dataclass(frozen=True, kw_only=True)
class Vanished:
    """A sandbox whose container is missing or has stopped: BROKEN. Unless it is `sure`, look again
    before: who starts it may be at work."""

    sandbox: Sandbox
    reason: str
    sure: bool


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """A sandbox that never finished being created: BROKEN."""

    sandbox: Sandbox
    reason: str


@dataclass(frozen=True, kw_only=True)
class Silent:
    """A sandbox whose agent stopped asking its inbox: BROKEN."""

    sandbox: Sandbox
    reason: str


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A sandbox without a session that is BROKEN or STOPPING: retire it further."""

    sandbox: Sandbox


@dataclass(frozen=True, kw_only=True)
class Unnoticed:
    """A BROKEN sandbox whose session hasn't let go of it: have the session looked at again. Who
    broke it may have died, or lost a race, before telling the session."""

    sandbox: Sandbox


Diagnosis = Orphan | Vanished | Stuck | Silent
LooseEnd = Leftover | Unnoticed


def diagnose(
    containers: Iterable[Container],
    sandboxes: Iterable[Sandbox],
    now: datetime,
    agents_heard_since: datetime,
) -> Iterator[Diagnosis]:
    """Everything that is wrong on one host. `sandboxes` are all of that host that aren't GONE.

    `agents_heard_since` is when the agents could last start to reach us (our own start): before
    that, their silence is our fault.
    """
    by_sandbox = {container.sandbox_id: container for container in containers}
    live = {sandbox.id: sandbox for sandbox in sandboxes}
    for container in by_sandbox.values():
        if container.sandbox_id not in live:
            yield Orphan(container=container)
    for sandbox in live.values():
        found = _examine(sandbox, by_sandbox.get(sandbox.id), now, agents_heard_since)
        if found is not None:
            yield found


def loose(sandboxes: Iterable[Sandbox]) -> Iterator[LooseEnd]:
    """What can be said of BROKEN and STOPPING sandboxes without knowing what runs on their host."""
    for sandbox in sandboxes:
        if sandbox.session_id is None:
            yield Leftover(sandbox=sandbox)
        elif sandbox.state is SandboxState.BROKEN:
            yield Unnoticed(sandbox=sandbox)


def _examine(
    sandbox: Sandbox, container: Container | None, now: datetime, heard_since: datetime
) -> Diagnosis | None:
    if sandbox.state in {SandboxState.BROKEN, SandboxState.STOPPING}:
        return None  # see `loose`
    if sandbox.state is SandboxState.CREATING and sandbox.container_id is None:
        # Its maker may be at work on it; a maker that died leaves it for too long.
        if now - sandbox.created_at > _CREATING_MAX:
            return Stuck(sandbox=sandbox, reason="its container was never started")
        return None
    if container is None:
        return Vanished(sandbox=sandbox, reason="its container is gone", sure=False)
    if not container.running:
        reason = f"its container stopped ({container.exit_note or 'no note'})"
        return Vanished(sandbox=sandbox, reason=reason, sure=container.exited)
    if sandbox.state is SandboxState.CREATING and sandbox.agent_seen_at is None:
        if now - max(sandbox.created_at, heard_since) > _CREATING_MAX:
            return Stuck(sandbox=sandbox, reason="its agent never dialled home")
        return None
    last = max(sandbox.agent_seen_at or sandbox.created_at, heard_since)
    if now - last > _SILENCE_MAX:
        return Silent(sandbox=sandbox, reason="its agent fell silent")
    return None
