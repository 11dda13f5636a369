"""The Host: a machine with Docker that gives us slots."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.domain import errors
from orchestrator.domain.ids import HostId


class HostState(enum.StrEnum):
    """Where a host is. The operator's cordoned and draining stand beside it."""

    JOINING = "joining"  # known, not yet found fit
    UP = "up"  # answers, has the runtime image, takes placements
    SUSPECT = "suspect"  # does not answer at the moment; no placements
    LOST = "lost"  # has not answered for too long; its sessions go elsewhere


TRANSITIONS: Mapping[HostState, frozenset[HostState]] = {
    HostState.JOINING: frozenset({HostState.UP, HostState.SUSPECT}),
    HostState.UP: frozenset({HostState.SUSPECT}),
    HostState.SUSPECT: frozenset({HostState.UP, HostState.LOST}),
    HostState.LOST: frozenset({HostState.JOINING, HostState.UP}),
}

_SLOT_MEMORY_BYTES = 256 * 1024**2
_SLOTS_PER_CPU = 16
_SLOTS_MAX = 200


@dataclass(frozen=True, kw_only=True)
class Host:
    """One row of the hosts table."""

    id: HostId
    name: str
    docker_url: str  # what the docker SDK connects to: unix:///...
    publish_address: str  # where its published ports are reached from the proxy
    agent_folder: str  # folder on the host that holds the agent socket
    state: HostState
    cordoned: bool
    draining: bool
    slots: int
    reason: str  # why it isn't UP, for people
    seen_at: datetime | None  # last answer of its engine
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class HostLoad:
    """What a placement has to know of one host."""

    host: Host
    used: int  # sandboxes that hold a slot
    starting: int  # of those, CREATING

    @property
    def free(self) -> int:
        return max(0, self.host.slots - self.used)


def move(host: Host, to: HostState, reason: str) -> Host:
    """The host in its next state, or in the same one with another reason. Raises IllegalMove."""
    if to is not host.state and to not in TRANSITIONS[host.state]:
        raise errors.IllegalMove(
            f"host {host.name} can't go from {host.state} to {to} ({host.reason or 'no reason'})"
        )
    return replace(host, state=to, reason=reason)


def default_slots(*, memory_bytes: int, cpus: int) -> int:
    """Slots that a machine gives unless told otherwise.

    A waiting sandbox takes under 30 MB and a small app 40-120 MB, so 256 MiB each leaves room for
    the system; CPU is shared, so it bounds far more loosely.
    """
    return max(1, min(memory_bytes // _SLOT_MEMORY_BYTES, cpus * _SLOTS_PER_CPU, _SLOTS_MAX))
