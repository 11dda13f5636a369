"""The Host: a machine with Docker that gives us slots; its states, its load, its start curve."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator.domain import errors
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host_fields import HostAddress, parse_address


class HostState(enum.StrEnum):
    """Where a host is. The operator's cordon and drain stand beside it."""

    JOINING = "joining"  # reachable or about to be; not yet found fit
    UP = "up"  # answers, is swept, fenced and has a runtime image: takes placements
    SUSPECT = "suspect"  # does not answer at the moment; no placements, its apps go on
    LOST = "lost"  # has not answered for too long; its sessions go elsewhere


class Drain(enum.StrEnum):
    """What the operator wants to become of what is on a host."""

    NONE = "none"  # nothing: it stays
    WAIT = "wait"  # nothing new comes, and what is there may end by itself
    MOVE = "move"  # nothing new comes, and running sessions are moved to other hosts
    LEAVE = "leave"  # it goes out of the pool: as if lost, and forgotten once nothing is on it


TRANSITIONS: Mapping[HostState, frozenset[HostState]] = {
    HostState.JOINING: frozenset({HostState.UP, HostState.SUSPECT}),
    HostState.UP: frozenset({HostState.SUSPECT}),
    HostState.SUSPECT: frozenset({HostState.UP, HostState.LOST}),
    # A host that returns is swept first: it never goes straight back to UP.
    HostState.LOST: frozenset({HostState.JOINING}),
}

LOST_AFTER = timedelta(seconds=15)
STARTS_AT_ONCE = 3  # per host, at most; beyond it every start only makes the others slower


@dataclass(frozen=True, kw_only=True)
class StartCurve:
    """How long starts take on one host, by how many were in progress there: a moving average."""

    seconds: tuple[float | None, ...] = (None,) * STARTS_AT_ONCE  # for 1, 2, ... at once

    @property
    def at_once(self) -> int:
        """The number of concurrent starts that gets most of them done per second. What has not
        been measured is taken as good, so that it gets measured."""
        for count in range(STARTS_AT_ONCE, 0, -1):
            if self.seconds[count - 1] is None:
                return count
        rates = [
            (count / (self.seconds[count - 1] or 1e-3), count)
            for count in range(1, STARTS_AT_ONCE + 1)
        ]
        return max(rates)[1]

    def with_start(self, at_once: int, took_s: float) -> StartCurve:
        """The curve with one more start in it: `at_once` were in progress, itself included."""
        index = min(max(at_once, 1), STARTS_AT_ONCE) - 1
        known = self.seconds[index]
        # A fifth of the newest: a start that met a busy moment moves it, and doesn't decide.
        average = took_s if known is None else known + (took_s - known) / 5
        return StartCurve(
            seconds=(*self.seconds[:index], round(average, 4), *self.seconds[index + 1 :])
        )


@dataclass(frozen=True, kw_only=True)
class Host:
    """One row of the hosts table."""

    id: HostId
    name: str
    docker_url: str  # unix:///... for the engine of this machine, ssh://user@host[:port] otherwise
    publish_address: str  # where its published ports are reached from the proxy
    agent_folder: str  # folder on the host that holds the agent socket
    state: HostState
    slots: int
    created_at: datetime
    state_since: datetime
    cordoned: bool = False
    drain: Drain = Drain.NONE
    host_key: str = ""  # the pinned public key, "ssh-ed25519 AAAA..."; "" for this machine
    machine_id: str = ""  # of its operating system; tells two names of one machine
    region: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    image: str = ""  # the runtime image that it has
    shortage: str = ""  # what it is too short of to take more, for people; "" when it isn't
    starts: StartCurve = field(default_factory=StartCurve)
    generation: int = 1  # grows when it is lost: nothing of an earlier one is ever served again
    reason: str = ""  # why it isn't UP, for people
    seen_at: datetime | None = None  # last answer of its engine

    @property
    def remote(self) -> bool:
        return self.docker_url.startswith("ssh://")

    @property
    def address(self) -> HostAddress:
        """Of a remote host. Raises InvalidInput for this machine's."""
        return parse_address(self.docker_url)

    @property
    def open(self) -> bool:
        """Whether it takes placements at all; room is another question."""
        return self.serving and not self.shortage

    @property
    def serving(self) -> bool:
        """Whether what it has warm may be claimed: also when it is too short to take more."""
        return self.state is HostState.UP and not self.cordoned and self.drain is Drain.NONE

    def transition(self, to: HostState, now: datetime, reason: str) -> Host:
        """The host in its next state, or in the same one with another reason. Raises
        IllegalMove when the table has no such transition."""
        if to is self.state:
            return replace(self, reason=reason)
        if to not in TRANSITIONS[self.state]:
            raise errors.IllegalMove(
                f"host {self.name} can't go from {self.state} to {to}"
                f" ({self.reason or 'no reason'})"
            )
        return replace(self, state=to, state_since=now, reason=reason)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a session asks of the host that it runs on. The empty wish is met by every host."""

    region: str = ""  # "" is any
    labels: Mapping[str, str] = field(default_factory=dict)  # all of these

    def __bool__(self) -> bool:
        return bool(self.region or self.labels)

    def __str__(self) -> str:
        """For people: `region eu, gpu=yes`."""
        labels = (f"{key}={value}" for key, value in sorted(self.labels.items()))
        return ", ".join([f"region {self.region}"] * bool(self.region) + list(labels))

    def met_by(self, host: Host) -> bool:
        return (not self.region or host.region == self.region) and (
            self.labels.items() <= host.labels.items()
        )


@dataclass(frozen=True, kw_only=True)
class HostLoad:
    """What a placement has to know of one host."""

    host: Host
    used: int  # sandboxes that hold a slot
    starting: int = 0  # of those, CREATING
    warm: int = 0  # of those, WARM or on the way there: nobody's yet

    @property
    def free(self) -> int:
        return max(0, self.host.slots - self.used)


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What the link to a host says of it right now."""

    up: bool  # the link stands and Docker answers through it
    since: datetime  # when that became so
    reason: str = ""  # why not, for people
    code: str = ""  # "host_key_changed" and its like; "" when there is nothing to alert anybody of


def assess(host: Host, reach: Reach, now: datetime) -> Host:
    """The host as its link finds it. To UP it comes by being admitted, never from here.

    Not reached: SUSPECT at once, LOST when that has lasted. Reached again: what was LOST is
    JOINING, to be swept; what was SUSPECT waits to be admitted.
    """
    if host.drain is Drain.LEAVE:
        return host
    if reach.up:
        if host.state is HostState.LOST:
            return host.transition(HostState.JOINING, now, "it is back, and being swept")
        return host
    if host.state is HostState.SUSPECT and now - max(reach.since, host.state_since) >= LOST_AFTER:
        return host.transition(HostState.LOST, now, reach.reason)
    if host.state is HostState.LOST:
        return replace(host, reason=reach.reason)
    return host.transition(HostState.SUSPECT, now, reach.reason)
