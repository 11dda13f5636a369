"""The Host: a machine with Docker that offers slots, with its states, load, starts and losses."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator.domain import errors
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host_fields import HostAddress, parse_address
from orchestrator.domain.pool.silence import are_too_many


class HostState(enum.StrEnum):
    """The state of a host. The operator's cordon and drain are separate fields."""

    JOINING = "joining"  # new or back; not checked yet
    UP = "up"  # answers, is swept and fenced, has a runtime image: takes placements
    SUSPECT = "suspect"  # does not answer now; takes no placements, its apps run on
    LOST = "lost"  # has not answered for too long; its sessions recover on other hosts


class Drain(enum.StrEnum):
    """What the operator wants done with the sessions on a host."""

    NONE = "none"  # nothing: they stay
    WAIT = "wait"  # no new ones; those on it run until they end
    MOVE = "move"  # no new ones; those that are READY move to other hosts
    LEAVE = "leave"  # treat the host as lost, and delete it once it has no sandbox


TRANSITIONS: Mapping[HostState, frozenset[HostState]] = {
    HostState.JOINING: frozenset({HostState.UP, HostState.SUSPECT}),
    HostState.UP: frozenset({HostState.SUSPECT}),
    HostState.SUSPECT: frozenset({HostState.UP, HostState.LOST}),
    # A host that returns is swept first: it never goes straight back to UP.
    HostState.LOST: frozenset({HostState.JOINING}),
}

STARTS_AT_ONCE = 3  # per host at most; more would only slow each other down
# Sandboxes of sessions that wait on a host for their start: when one has started, the next one is
# there already. No more, because whoever waits in the queue can still go to any host.
STARTS_IN_LINE = 2
PORT_SET_ASIDE = timedelta(minutes=10)  # a try costs one start a third of a second


@dataclass(frozen=True, kw_only=True)
class StartCurve:
    """How long a start takes on one host, by how many are in progress there. A moving average."""

    seconds: tuple[float | None, ...] = (None,) * STARTS_AT_ONCE  # at [0]: one at a time

    @property
    def at_once(self) -> int:
        """The number of concurrent starts that completes the most starts per second.

        The largest number that has no measurement yet comes first, so that it gets one.
        """
        for count in range(STARTS_AT_ONCE, 0, -1):
            if self.seconds[count - 1] is None:
                return count
        rates = [
            (count / (self.seconds[count - 1] or 1e-3), count)
            for count in range(1, STARTS_AT_ONCE + 1)
        ]
        return max(rates)[1]

    def with_start(self, at_once: int, took_s: float) -> StartCurve:
        """The curve after one more start, of which `at_once` were in progress, itself included."""
        index = min(max(at_once, 1), STARTS_AT_ONCE) - 1
        average = self.seconds[index]
        # The newest start weighs a fifth: a single slow one shifts the average only a little.
        average = took_s if average is None else average + (took_s - average) / 5
        return StartCurve(
            seconds=(*self.seconds[:index], round(average, 4), *self.seconds[index + 1 :])
        )


_LOSSES_WITHIN = timedelta(minutes=5)  # an agent that never answers is given up after 30 or 45 s
_LOSERS_MAX = 100  # owners in the row of a host
_ASIDE_FIRST_S, _ASIDE_MAX_S = 5.0, 300.0
_ASIDE_FORGOTTEN = timedelta(minutes=10)  # after such a time without another one


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Whose sandboxes one host lost lately, and until when it gets no more of them for that.

    The owner of a sandbox is its user. A user counts once, since their apps may have taken down
    their sandboxes themselves. A sandbox of the warm pool is an owner of its own.
    """

    owners: Mapping[str, datetime] = field(default_factory=dict)  # with the time of their last one
    in_a_row: int = 0  # how often it was set aside
    until: datetime | None = None  # it was set aside until then

    def with_loss(self, owner: str, now: datetime) -> Losses:
        """These losses and one more."""
        others = [
            (other, at)
            for other, at in self.owners.items()
            if other != owner and now - at < _LOSSES_WITHIN
        ]
        return replace(self, owners=dict([*others, (owner, now)][-_LOSERS_MAX:]))

    def are_the_hosts(self, owners: Collection[str]) -> bool:
        """Whether they are too many for the apps' own fault. `owners`: who has a sandbox there."""
        return are_too_many(len(self.owners), len({*self.owners, *owners}))

    def set_aside(self, now: datetime) -> Losses:
        """After the host was set aside for them: for 5 s, then twice as long, up to 5 minutes."""
        is_new = self.until is None or now - self.until >= _ASIDE_FORGOTTEN
        in_a_row = 1 if is_new else self.in_a_row + 1
        pause_s = min(_ASIDE_FIRST_S * 2.0 ** min(in_a_row - 1, 10), _ASIDE_MAX_S)
        return Losses(in_a_row=in_a_row, until=now + timedelta(seconds=pause_s))

    def hold(self, now: datetime) -> bool:
        """Whether the host is set aside for them now."""
        return self.until is not None and now < self.until


@dataclass(frozen=True, kw_only=True)
class Host:
    """One row of the hosts table."""

    id: HostId
    name: str
    docker_url: str  # unix:///... on this machine, ssh://user@host[:port] on another one
    publish_address: str  # where the proxy reaches its published ports
    agent_folder: str  # folder on the host that holds the agent sockets
    state: HostState
    slots: int
    created_at: datetime
    state_since: datetime
    cordoned: bool = False
    drain: Drain = Drain.NONE
    host_key: str = ""  # the pinned public key, "ssh-ed25519 AAAA..."; "" for this machine
    machine_id: str = ""  # from its operating system; reveals a machine that is added twice
    region: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    image: str = ""  # the runtime image that it has
    cpus: int = 0  # that its engine has; 0: nobody has asked it yet
    # Whether its engine changes the CPU limit of a container that runs; None: nobody has tried.
    changes_cpus: bool | None = None
    shortage: str = ""  # what it lacks to take more sandboxes, for people; "" for nothing
    # Ports that other programs hold, with the time until which nobody tries them again.
    taken_ports: Mapping[int, datetime] = field(default_factory=dict)
    starts: StartCurve = field(default_factory=StartCurve)
    losses: Losses = field(default_factory=Losses)
    generation: int = 1  # grows when it is LOST; sandboxes of an earlier one are never served again
    reason: str = ""  # why it isn't UP, for people
    seen_at: datetime | None = None  # when its engine last answered

    @property
    def is_remote(self) -> bool:
        return self.docker_url.startswith("ssh://")

    @property
    def address(self) -> HostAddress:
        """The SSH address of a remote host. Raises errors.InvalidInput for this machine."""
        return parse_address(self.docker_url)

    @property
    def accepts_placements(self) -> bool:
        """Whether sandboxes may be placed on it, if it has a free slot."""
        return self.accepts_claims and not self.shortage

    @property
    def accepts_claims(self) -> bool:
        """Whether its warm sandboxes may be claimed, even if it lacks something to take more."""
        return self.state is HostState.UP and not self.cordoned and self.drain is Drain.NONE

    def ports_set_aside(self, now: datetime) -> Collection[int]:
        """The ports that no sandbox gets now, because another program was seen to hold them."""
        return sorted(port for port, until in self.taken_ports.items() if until > now)

    def set_port_aside(self, port: int, now: datetime) -> Host:
        """The host after Docker said that another program holds this port."""
        others = {port: self.taken_ports[port] for port in self.ports_set_aside(now)}
        return replace(self, taken_ports={**others, port: now + PORT_SET_ASIDE})

    def port_shortage(self, now: datetime) -> str:
        """What it lacks when it has no port left, for people."""
        return (
            "ports: none of SPAWN_PORTS is free; other programs hold"
            f" {len(self.ports_set_aside(now))} of them"
        )

    def transition(self, to: HostState, now: datetime, reason: str) -> Host:
        """The host in state `to`, or in the same state with another reason.

        Raises errors.IllegalTransition if TRANSITIONS doesn't allow it.
        """
        if to is self.state:
            return replace(self, reason=reason)
        if to not in TRANSITIONS[self.state]:
            raise errors.IllegalTransition(
                f"host {self.name} can't go from {self.state} to {to}"
                f" ({self.reason or 'no reason'})"
            )
        return replace(self, state=to, state_since=now, reason=reason)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a session requires of its host. Every host meets the empty wish."""

    region: str = ""  # "": any
    labels: Mapping[str, str] = field(default_factory=dict)  # the host must have all of these

    def __bool__(self) -> bool:
        return bool(self.region or self.labels)

    def __str__(self) -> str:
        """For people: `region eu, gpu=yes`."""
        labels = (f"{key}={value}" for key, value in sorted(self.labels.items()))
        return ", ".join([f"region {self.region}"] * bool(self.region) + list(labels))


@dataclass(frozen=True, kw_only=True)
class HostKind:
    """Hosts that no wish tells apart, with what they have for sessions."""

    region: str
    labels: Mapping[str, str]
    accepts_claims: bool  # see Host
    slots: int
    free: int  # slots of those of them that take placements
    warm: int  # sandboxes that a claim could get
    host_ids: Collection[HostId]

    def meets(self, wish: Wish) -> bool:
        return wish.region in {"", self.region} and wish.labels.items() <= self.labels.items()


@dataclass(frozen=True, kw_only=True)
class HostLoad:
    """One host with what its sandboxes take, for placements."""

    host: Host
    used: int  # sandboxes that hold a slot
    starting: int = 0  # those of them that are CREATING
    warm: int = 0  # those of them that are WARM or become so, and belong to no session

    @property
    def free(self) -> int:
        return max(0, self.host.slots - self.used)
