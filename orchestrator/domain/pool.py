"""Decisions about the pool as a whole: how many warm sandboxes to start now, and where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.domain.host import HostLoad, HostState

_POSTPONE_MAX_S = 2.0
STARTS_AT_ONCE = 3  # per host; beyond it every start only makes the others slower

GIVING_WAY = "sessions are arriving"


@dataclass(frozen=True, kw_only=True)
class WarmLevel:
    """What the refill loop saw."""

    target: int
    warm: int  # WARM sandboxes
    warming: int  # CREATING for the warm pool
    waiting: int  # sessions QUEUED and due
    arriving: int  # sessions that have a sandbox and are about to be READY
    postponed_s: float  # for how long refills have given way to those
    loads: tuple[HostLoad, ...]


@dataclass(frozen=True, kw_only=True)
class Refill:
    """How many warm sandboxes to start in this pass, and why not more."""

    starts: int
    reason: str = ""


def refill(level: WarmLevel) -> Refill:
    """Starts to make now. Never more than the target counting those in flight, never a slot that
    a waiting session could have, never more than STARTS_AT_ONCE per host; and not in the very
    moment in which a burst is being served, for a start takes the CPU that the apps need."""
    missing = level.target - level.warm - level.warming
    if missing <= 0:
        return Refill(starts=0, reason="" if missing == 0 else "above target")
    if level.waiting > level.warm:
        return Refill(starts=0, reason="sessions are waiting")
    if level.arriving and level.postponed_s < _POSTPONE_MAX_S:
        return Refill(starts=0, reason=GIVING_WAY)
    usable = [load for load in level.loads if placeable(load)]
    room = sum(min(load.free, STARTS_AT_ONCE - load.starting) for load in usable)
    if room <= 0:
        return Refill(starts=0, reason="no free slot" if not usable else "starts in progress")
    return Refill(starts=min(missing, room))


def open_for_placement(load: HostLoad) -> bool:
    """Whether the host takes placements at all."""
    host = load.host
    return host.state is HostState.UP and not host.cordoned and not host.draining


def placeable(load: HostLoad) -> bool:
    """Whether a new sandbox may go to this host now."""
    return open_for_placement(load) and load.free > 0 and load.starting < STARTS_AT_ONCE


def rank(loads: Iterable[HostLoad]) -> Sequence[HostLoad]:
    """Hosts that may take a sandbox, the one with most room first, starts in progress counted."""
    fit = [load for load in loads if placeable(load)]
    return sorted(fit, key=lambda load: (load.free - load.starting, load.host.id), reverse=True)
