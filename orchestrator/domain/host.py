"""The Host: a machine with Docker that gives us slots; its states, its load, its start curve."""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from orchestrator.domain import errors
from orchestrator.domain.ids import HostId


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

_SLOT_MEMORY_BYTES = 256 * 1024**2
_SLOTS_PER_CPU = 16
_SLOTS_MAX = 200
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_SSH_PORT = 22


@dataclass(frozen=True, kw_only=True)
class HostAddress:
    """Where a host is reached by SSH."""

    user: str
    host: str  # name or address, IPv6 without brackets
    port: int = _SSH_PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _SSH_PORT else f":{self.port}"
        return f"ssh://{self.user}@{host}{port}"


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


def move(host: Host, to: HostState, now: datetime, reason: str) -> Host:
    """The host in its next state, or in the same one with another reason. Raises IllegalMove."""
    if to is host.state:
        return replace(host, reason=reason)
    if to not in TRANSITIONS[host.state]:
        raise errors.IllegalMove(
            f"host {host.name} can't go from {host.state} to {to} ({host.reason or 'no reason'})"
        )
    return replace(host, state=to, state_since=now, reason=reason)


def assess(host: Host, reach: Reach, now: datetime) -> Host:
    """The host as its link finds it. To UP it comes by being admitted, never from here.

    Not reached: SUSPECT at once, LOST when that has lasted. Reached again: what was LOST is
    JOINING, to be swept; what was SUSPECT waits to be admitted.
    """
    if host.drain is Drain.LEAVE:
        return host
    if reach.up:
        if host.state is HostState.LOST:
            return move(host, HostState.JOINING, now, "it is back, and being swept")
        return host
    if host.state is HostState.SUSPECT and now - max(reach.since, host.state_since) >= LOST_AFTER:
        return move(host, HostState.LOST, now, reach.reason)
    if host.state is HostState.LOST:
        return replace(host, reason=reach.reason)
    return move(host, HostState.SUSPECT, now, reach.reason)


def measured(curve: StartCurve, at_once: int, took_s: float) -> StartCurve:
    """The curve with one more start in it: `at_once` were in progress, itself included."""
    index = min(max(at_once, 1), STARTS_AT_ONCE) - 1
    known = curve.seconds[index]
    # A fifth of the newest: a start that met a busy moment moves it, and doesn't decide.
    now = took_s if known is None else known + (took_s - known) / 5
    return StartCurve(seconds=(*curve.seconds[:index], round(now, 4), *curve.seconds[index + 1 :]))


def parse_address(text: str) -> HostAddress:
    """Of "ssh://user@host[:port]". Raises InvalidInput that says what is missing."""
    wanted = f"{text!r} is not an address like ssh://root@10.0.0.5 or ssh://root@10.0.0.5:2222"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise errors.InvalidInput(wanted, field="address") from error
    if parts.scheme != "ssh" or not host or parts.path not in {"", "/"} or parts.query:
        raise errors.InvalidInput(wanted, field="address")
    if parts.password is not None:
        raise errors.InvalidInput(
            "leave the password out of the address: hosts are reached with our key alone",
            field="address",
        )
    if not parts.username or not _USER.fullmatch(parts.username):
        raise errors.InvalidInput(f"{wanted}: name the user to log in as", field="address")
    return HostAddress(user=parts.username, host=host, port=port or _SSH_PORT)


def checked_name(name: str) -> str:
    """Raises InvalidInput unless it may name a host."""
    if _NAME.fullmatch(name):
        return name
    raise errors.InvalidInput(
        f"{name!r} can't name a host: use up to 32 of a-z, 0-9 and hyphens, e.g. paris-1",
        field="name",
    )


def checked_publish_address(text: str) -> str:
    """Raises InvalidInput unless it is an IPv4 address that isn't "any"."""
    try:
        found = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise errors.InvalidInput(
            f"{text!r} is no IPv4 address: give the one of the host that the proxy reaches",
            field="publish_address",
        ) from error
    if found.is_unspecified or found.is_multicast:
        raise errors.InvalidInput(
            f"{text} would publish apps on every network of the host: give one address of it",
            field="publish_address",
        )
    return str(found)


def checked_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Raises InvalidInput unless keys and values are plain words."""
    for key, value in labels.items():
        if not _LABEL.fullmatch(key) or (value and not _LABEL.fullmatch(value)):
            raise errors.InvalidInput(
                f"{key}={value} is not a label: use letters, digits and ._/- (63 at most)",
                field="labels",
            )
    return dict(sorted(labels.items()))


def checked_region(text: str) -> str:
    """Raises InvalidInput unless it is a plain word, or "" for none."""
    if text and not _LABEL.fullmatch(text):
        raise errors.InvalidInput(
            f"{text!r} is not a region: use letters, digits and ._/- (63 at most), e.g. eu-west",
            field="region",
        )
    return text


def default_slots(*, memory_bytes: int, cpus: int) -> int:
    """Slots that a machine gives unless told otherwise.

    A waiting sandbox takes under 30 MB and a small app 40-120 MB, so 256 MiB each leaves room for
    the system; CPU is shared, so it bounds far more loosely.
    """
    return max(1, min(memory_bytes // _SLOT_MEMORY_BYTES, cpus * _SLOTS_PER_CPU, _SLOTS_MAX))
