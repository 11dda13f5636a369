"""Diagnoses: what differs between the store and a host's engine, as named values.

services.pool.reconcile reads both sides, the store last, and acts on each diagnosis. A row is
committed before its container is created. A container without a row is therefore an orphan, never
one that somebody is just creating.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.pool.silence import SILENCE_MAX, Hearing

_CREATING_MAX = timedelta(seconds=45)


@dataclass(frozen=True, kw_only=True)
class Container:
    """One of our containers, as its engine describes it."""

    id: str
    sandbox_id: SandboxId  # from its label
    running: bool
    exited: bool = False  # it has run and stopped; nobody starts one of ours a second time
    exit_note: str = ""  # exit code and reason, if it isn't running


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """No live sandbox owns this container: remove it."""

    container: Container


@dataclass(frozen=True, kw_only=True)
class Vanished:
    """The sandbox's container is missing or has stopped: mark the sandbox BROKEN.

    Unless it is `sure`, check again first: somebody may be starting the container right now.
    """

    sandbox: Sandbox
    reason: str
    sure: bool
    by_host: bool = False  # no app can remove its container: the engine or a person did


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """The sandbox has been CREATING for too long: mark it BROKEN."""

    sandbox: Sandbox
    reason: str


@dataclass(frozen=True, kw_only=True)
class Silent:
    """The sandbox's agent has stopped polling its inbox: mark the sandbox BROKEN."""

    sandbox: Sandbox
    reason: str


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A STOPPING sandbox, or a BROKEN one that no session owns: take it one step nearer to GONE."""

    sandbox: Sandbox


@dataclass(frozen=True, kw_only=True)
class Unnoticed:
    """A session still owns this BROKEN sandbox: nudge the session.

    Whoever marked the sandbox BROKEN may have died, or lost a race, before nudging it.
    """

    sandbox: Sandbox


Diagnosis = Orphan | Vanished | Stuck | Silent
LooseEnd = Leftover | Unnoticed


def diagnose(
    containers: Iterable[Container],
    sandboxes: Iterable[Sandbox],
    now: datetime,
    hearing: Hearing,
) -> Iterator[Diagnosis]:
    """Find everything that is wrong on one host. `sandboxes`: all of that host but GONE ones.

    Only the silence of agents within `hearing` counts. Before it and after it they may have been
    silent by our fault.
    """
    by_sandbox = {container.sandbox_id: container for container in containers}
    live = {sandbox.id: sandbox for sandbox in sandboxes}
    for container in by_sandbox.values():
        if container.sandbox_id not in live:
            yield Orphan(container=container)
    for sandbox in live.values():
        diagnosis = _examine(sandbox, by_sandbox.get(sandbox.id), now, hearing)
        if diagnosis is not None:
            yield diagnosis


def find_loose_ends(sandboxes: Iterable[Sandbox]) -> Iterator[LooseEnd]:
    """Find what to do about BROKEN and STOPPING sandboxes. Needs no answer from their hosts."""
    for sandbox in sandboxes:
        if sandbox.session_id is None or sandbox.state is SandboxState.STOPPING:
            yield Leftover(sandbox=sandbox)
        else:
            yield Unnoticed(sandbox=sandbox)


def _examine(
    sandbox: Sandbox, container: Container | None, now: datetime, hearing: Hearing
) -> Diagnosis | None:
    if sandbox.state in {SandboxState.BROKEN, SandboxState.STOPPING}:
        return None  # `find_loose_ends` deals with it
    if sandbox.state is SandboxState.CREATING and sandbox.container_id is None:
        # Its creator may still be at work. Past the limit the creator has died.
        if now - sandbox.created_at > _CREATING_MAX:
            return Stuck(sandbox=sandbox, reason="its container was never started")
        return None
    if container is None:
        return Vanished(sandbox=sandbox, reason="its container is gone", sure=False, by_host=True)
    if not container.running:
        reason = f"its container stopped ({container.exit_note or 'no reason given'})"
        return Vanished(sandbox=sandbox, reason=reason, sure=container.exited)
    if sandbox.state is SandboxState.CREATING and sandbox.agent_seen_at is None:
        if hearing.until - max(sandbox.created_at, hearing.since) > _CREATING_MAX:
            return Stuck(sandbox=sandbox, reason="its agent never connected")
        return None
    heard_at = max(sandbox.agent_seen_at or sandbox.created_at, hearing.since)
    if hearing.until - heard_at > SILENCE_MAX:
        return Silent(sandbox=sandbox, reason="its agent stopped polling")
    return None
