"""How many CPUs a sandbox may use: more until its app is READY, its share from then on.

Pure. claims.start asks for a new sandbox, the limits loop for those that run. A limit reserves
nothing: if all together ask for more than their host has, its kernel gives each an equal part.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.host import Host

_START_MAX = 2.0  # an agent, a generator and an app start with about two busy threads
# A start takes a second or two. Who works for longer shares with others what the host has.
SPURT = timedelta(seconds=20)
# The first page that somebody opens is the slowest, and an app that is ended at once costs no call.
SETTLE = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class CpuLimits:
    """What the operator lets sandboxes have."""

    share: float = 0.5  # CPUs of a sandbox whose app is READY
    start: float = 0.0  # of one that starts, generates or deploys; 0: those of its host, at most 2

    @property
    def can_differ(self) -> bool:
        """Whether a start may get more than the share on any host."""
        return not self.start or self.start > self.share

    def at_start(self, host: Host) -> float:
        """The CPUs of a sandbox that starts: never more than its host has, unless its share is."""
        return max(self.share, min(self.start or _START_MAX, host.cpus))


class CpuUse(enum.StrEnum):
    """What a sandbox needs its CPUs for."""

    WAITING = "waiting"  # it is warm: nothing of a user runs in it
    WORKING = "working"  # its session is in progress, or moves to it
    SERVING = "serving"  # its session is READY


@dataclass(frozen=True, kw_only=True)
class CpuHolder:
    """A sandbox that runs, and the limit that it has."""

    sandbox_id: SandboxId
    host_id: HostId
    container_id: str
    raised: bool  # it has, or may have, the limit of a start
    use: CpuUse
    since: datetime  # when this use began; of a session's work, see progress.work_began_at


@dataclass(frozen=True, kw_only=True)
class CpuChange:
    """A sandbox that is to get another limit."""

    holder: CpuHolder
    raised: bool
    cpus: float


def plan(
    holders: Iterable[CpuHolder], host: Host, limits: CpuLimits, now: datetime
) -> Sequence[CpuChange]:
    """The changes that this host's sandboxes need, the most urgent first: lower, then raise.

    On a host whose engine can't change limits nobody is raised: nobody could be lowered.
    """
    holders = sorted(holders, key=lambda holder: holder.since, reverse=True)
    start = limits.at_start(host)
    wanted: set[SandboxId] = set()
    if start > limits.share and host.changes_cpus is not False:
        wanted = {holder.sandbox_id for holder in _find_raised(holders, host.cpus / start, now)}
    changes = []
    for holder in holders:
        raised = holder.sandbox_id in wanted
        if raised != holder.raised:
            cpus = start if raised else limits.share
            changes.append(CpuChange(holder=holder, raised=raised, cpus=cpus))
    return sorted(changes, key=lambda change: (change.raised, change.holder.use is CpuUse.WAITING))


def _find_raised(holders: Sequence[CpuHolder], room: float, now: datetime) -> Iterator[CpuHolder]:
    """Those that are to have the limit of a start. `holders` come with the latest first.

    The warm ones have it, so that no start waits for its engine; who began to work or became READY
    a moment ago; and of those who work for longer the latest, as many as the host has CPUs for: a
    session that never becomes READY holds up nobody.
    """
    working = 0
    for holder in holders:
        if holder.use is CpuUse.WAITING:
            yield holder
        elif holder.use is CpuUse.WORKING:
            working += 1
            if working <= max(1, int(room)) or now - holder.since < SPURT:
                yield holder
        elif holder.raised and now - holder.since < SETTLE:
            yield holder
