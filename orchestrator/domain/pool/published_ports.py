"""Judges whether apps can be reached at their published ports, as the proxy reaches them.

What an agent says of its app doesn't tell this: the port is published by the engine, outside of the
sandbox. services.pool.port_watch looks at the ports and decides with it.

A port that refuses connections is dead, and its app is started again elsewhere. Many that can't be
reached together are not dead: their host, a firewall or we are at fault (see silence.py), and
nothing is destroyed, unless the host itself confirms of each that its app answers at its own
address and not at its port. Then those of the warm pool are replaced, and apps one by one, each
once a new port has answered.

A port that doesn't answer at all is dead only if others of its host do. One that accepts
connections and passes nothing on (MUTE) may be that of a busy app: it counts for nothing until that
has lasted as long as an agent may be silent, and its host confirms it.
"""

from __future__ import annotations

import enum
import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.silence import SILENCE_MAX, AgentGroup, Silence, find_silence

Endpoint = tuple[str, int]  # an IP address and a port

LOOKS_MIN = 3  # failures in a row before anything is done
_LOOK_EVERY_S = 5.0
_CONFIRMED_FOR = timedelta(seconds=30)  # the host is asked every few seconds
_NEXT_AFTER = SILENCE_MAX  # one app after the other, even if no new port has shown anything
_LOOKS_PER_S = 200  # over all hosts: the larger the pool, the less often each port is looked at


class PortAnswer(enum.StrEnum):
    """What came of a connection to a published port."""

    OPEN = "open"  # it was accepted, and something came back
    REFUSED = "refused"  # nobody listens there
    SILENT = "silent"  # no answer in time, or no way there
    MUTE = "mute"  # it was accepted, and nothing came back in time


@dataclass(frozen=True, kw_only=True)
class PublishedPort:
    """Where the proxy reaches a WARM or CLAIMED sandbox."""

    sandbox_id: SandboxId
    host_id: HostId
    owner: str  # a user; a sandbox of the warm pool is an owner of its own
    is_warm: bool  # runs no code of a user
    address: str  # the publish address of its host
    port: int
    up_since: datetime | None  # since when its host is UP; None: it is SUSPECT

    @property
    def endpoint(self) -> Endpoint:
        return self.address, self.port


@dataclass(frozen=True, kw_only=True)
class PortRecord:
    """What the looks at one port have shown."""

    port: PublishedPort
    looked_at: datetime | None = None
    failing_since: datetime | None = None  # None: it accepted the last connection
    failures: int = 0  # in a row
    refusals: int = 0  # in a row
    mute: int = 0  # times in a row that it was MUTE
    has_answered: bool = False  # ever
    first_look_at: datetime | None = None
    confirmed_at: datetime | None = None  # when its host last said that only the port is dead

    def after(self, answer: PortAnswer, now: datetime) -> PortRecord:
        """The record after one more look."""
        first_look_at = self.first_look_at or now
        if answer is PortAnswer.OPEN:
            return PortRecord(
                port=self.port, looked_at=now, has_answered=True, first_look_at=first_look_at
            )
        return replace(
            self,
            looked_at=now,
            first_look_at=first_look_at,
            failing_since=self.failing_since or now,
            failures=self.failures + 1,
            refusals=self.refusals + 1 if answer is PortAnswer.REFUSED else 0,
            mute=self.mute + 1 if answer is PortAnswer.MUTE else 0,
        )

    def is_confirmed(self, now: datetime) -> bool:
        """Whether its host says that its port is dead, and that nothing else is wrong."""
        return self.confirmed_at is not None and now - self.confirmed_at < _CONFIRMED_FOR

    def has_failed_for(self, time: timedelta) -> bool:
        """Whether it has not answered for longer than this, until the last look."""
        if self.failing_since is None or self.looked_at is None:
            return False
        return self.looked_at - self.failing_since > time

    def is_failing(self, now: datetime) -> bool:
        """Whether it can't be reached now. That of a busy app, which is MUTE, is not failing."""
        if self.mute:
            return self.has_failed_for(SILENCE_MAX) and self.is_confirmed(now)
        return self.failures > 0

    def of(self, port: PublishedPort) -> PortRecord:
        """The record of the same port as it is now. When its host has come UP, it begins anew."""
        if port == self.port:
            return self
        if port.up_since is not None and port.up_since != self.port.up_since:
            return PortRecord(
                port=port,
                has_answered=self.has_answered,
                first_look_at=self.first_look_at,
                confirmed_at=self.confirmed_at,
            )
        return replace(self, port=port)


@dataclass(frozen=True, kw_only=True)
class DeadPort:
    """The sandbox can't be reached, and nobody else is at fault: mark it BROKEN."""

    sandbox_id: SandboxId
    host_id: HostId
    reason: str


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What follows from the looks."""

    dead: Sequence[DeadPort] = ()
    blamed: Mapping[HostId, str] = field(default_factory=dict)  # hosts to leave alone, with reason


def find_due(records: Collection[PortRecord], now: datetime) -> Sequence[PortRecord]:
    """The ports to look at now, those that have waited longest first.

    A port that fails is looked at each time: nothing is decided on old looks.
    """
    every = timedelta(seconds=max(_LOOK_EVERY_S, len(records) / _LOOKS_PER_S))

    def is_due(record: PortRecord) -> bool:
        return record.looked_at is None or record.failures > 0 or now - record.looked_at >= every

    oldest = datetime.min.replace(tzinfo=now.tzinfo)
    return sorted(filter(is_due, records), key=lambda record: record.looked_at or oldest)


def judge(
    records: Iterable[PortRecord],
    blamed_before: Collection[HostId],
    replaced_at: Mapping[HostId, datetime],
    now: datetime,
) -> Judgement:
    """Judge all ports together.

    `blamed_before`: the hosts that the last judgement blamed. `replaced_at`: when the last dead
    port of a host was given up.
    """
    by_host: defaultdict[HostId, list[PortRecord]] = defaultdict(list)
    for record in records:
        if record.looked_at is not None:
            by_host[record.port.host_id].append(record)
    groups = (_groups(of_host, now) for of_host in by_host.values())
    silence = find_silence(itertools.chain.from_iterable(groups))
    blamed = {
        host_id: _describe(of_host, now)
        for host_id, of_host in by_host.items()
        if _is_host_to_blame(of_host, silence, host_id in blamed_before, now)
        or (
            _fails_again(of_host, replaced_at.get(host_id), now)
            and not _may_try_again(of_host, replaced_at[host_id], now)
        )
    }
    confirmed = [
        dead
        for host_id, of_host in by_host.items()
        if host_id not in blamed
        for dead in _find_confirmed(of_host, replaced_at.get(host_id), now)
    ]
    if silence.everywhere:
        return Judgement(dead=confirmed, blamed=blamed)
    oldest_look = min((_looked_at(r) for of_host in by_host.values() for r in of_host), default=now)
    return Judgement(
        dead=[
            *confirmed,
            *(
                DeadPort(sandbox_id=record.port.sandbox_id, host_id=host_id, reason=reason)
                for host_id, of_host in by_host.items()
                if host_id not in blamed and host_id not in silence.hosts
                for record in of_host
                # All others were looked at since it failed first: they would show a common cause.
                if record.failing_since is not None and record.failing_since <= oldest_look
                if not record.is_confirmed(now) and (reason := _find_death(record, of_host, now))
            ),
        ],
        blamed=blamed,
    )


def _groups(of_host: Sequence[PortRecord], now: datetime) -> Iterable[AgentGroup]:
    """The ports by owner. They count as the agents behind them: unreachable is overdue, unless the
    host has confirmed why."""
    ports = Counter(record.port.owner for record in of_host)
    failing = Counter(
        record.port.owner
        for record in of_host
        if record.is_failing(now) and not record.is_confirmed(now)
    )
    return [
        AgentGroup(
            host_id=of_host[0].port.host_id, owner=owner, agents=count, overdue=failing[owner]
        )
        for owner, count in ports.items()
    ]


def _is_host_to_blame(
    of_host: Sequence[PortRecord], silence: Silence, was_blamed: bool, now: datetime
) -> bool:
    """Whether the host, or the way there, keeps us from its ports.

    That is so if many fail together. If none of them answers, it is also so if one hangs, if all
    hosts have the same trouble, or if a warm sandbox never answered: no user had a hand in that.
    """
    if of_host[0].port.up_since is None and not was_blamed:
        return False  # its link told already that something is wrong with it
    failing = [
        record
        for record in of_host
        if record.is_failing(now) and record.failures >= LOOKS_MIN and not record.is_confirmed(now)
    ]
    if not failing:
        return False
    if of_host[0].port.host_id in silence.hosts:
        return True
    if any(record.failures == 0 for record in of_host):
        return False
    return silence.everywhere or any(
        record.refusals == 0 or (record.port.is_warm and not record.has_answered)
        for record in failing
    )


def _fails_again(
    of_host: Sequence[PortRecord], replaced_at: datetime | None, now: datetime
) -> bool:
    """Whether a port that is newer than the last replacement is dead too: the next would be."""
    return replaced_at is not None and any(
        record.first_look_at is not None
        and record.first_look_at > replaced_at
        and record.is_failing(now)
        and record.failures >= LOOKS_MIN
        and not record.has_answered
        and (record.port.is_warm or record.is_confirmed(now))  # no app had a hand in it
        for record in of_host
    )


def _may_try_again(of_host: Sequence[PortRecord], replaced_at: datetime, now: datetime) -> bool:
    """Whether a warm sandbox may be replaced once more, to see whether new ports work by now."""
    return now - replaced_at > _NEXT_AFTER and any(
        record.port.is_warm and record.is_confirmed(now) for record in of_host
    )


def _find_confirmed(
    of_host: Sequence[PortRecord], replaced_at: datetime | None, now: datetime
) -> Sequence[DeadPort]:
    """The ports to give up now, of those that their host has confirmed: all of the warm pool, which
    nobody misses, else one app, once a port that is newer than the last replacement answers."""
    dead = [
        record
        for record in of_host
        if record.port.up_since is not None
        and record.failures >= LOOKS_MIN
        and record.is_failing(now)
        and record.is_confirmed(now)
    ]
    warm = [record for record in dead if record.port.is_warm]
    is_next_due = replaced_at is None or (
        (not _fails_again(of_host, replaced_at, now) and now - replaced_at > _NEXT_AFTER)
        or any(
            record.has_answered and record.first_look_at > replaced_at
            for record in of_host
            if record.first_look_at is not None
        )
    )
    oldest = sorted(dead, key=lambda record: (record.failing_since or now, record.port.sandbox_id))
    return [
        DeadPort(
            sandbox_id=record.port.sandbox_id,
            host_id=record.port.host_id,
            reason=_find_death(record, of_host, now) or "its published port doesn't answer",
        )
        for record in (warm or (oldest[:1] if is_next_due else ()))
    ]


def _describe(of_host: Sequence[PortRecord], now: datetime) -> str:
    failing = [record for record in of_host if record.is_failing(now)]
    verb = "refuse connections" if all(record.refusals for record in failing) else "don't answer"
    return (
        f"{len(failing)} of {len(of_host)} published ports {verb} at {failing[0].port.address};"
        " no app is removed for it. Open SPAWN_PORTS in the firewalls between, or restart its"
        " Docker"
    )


def _find_death(record: PortRecord, of_host: Sequence[PortRecord], now: datetime) -> str:
    """Why this port is dead, for people; "" if it isn't."""
    if record.port.up_since is None or record.failing_since is None:
        return ""
    if record.refusals >= LOOKS_MIN:
        return "its published port refuses connections"
    if record.mute:
        is_dead = record.is_failing(now)
        return "its published port accepts connections and passes nothing on" if is_dead else ""
    has_open_neighbour = any(other.failures == 0 for other in of_host)
    if has_open_neighbour and now - record.failing_since > SILENCE_MAX:
        return "its published port doesn't answer, and others of its host do"
    return ""


def _looked_at(record: PortRecord) -> datetime:
    assert record.looked_at is not None
    return record.looked_at
