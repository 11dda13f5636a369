"""How many sandboxes to keep warm: the decisions of the refill loop."""

from __future__ import annotations

from dataclasses import dataclass

_POSTPONE_MAX_S = 2.0

GIVING_WAY = "sessions are arriving"


@dataclass(frozen=True, kw_only=True)
class PoolTotals:
    """The pool in figures, of hosts that take placements."""

    hosts: int
    slots: int
    free_slots: int


@dataclass(frozen=True, kw_only=True)
class WarmLevel:
    """What the refill loop saw."""

    target: int
    reserve: int  # slots that warm sandboxes leave to sessions
    warm: int  # WARM sandboxes of today's image that a session could claim
    outdated: int  # the same, of an older image
    warming: int  # CREATING for the warm pool
    waiting: int  # sessions QUEUED and due
    arriving: int  # sessions that have a sandbox and are about to be READY
    postponed_s: float  # for how long refills have given way to those
    totals: PoolTotals


@dataclass(frozen=True, kw_only=True)
class Refill:
    """How many warm sandboxes to start in this pass, and why not more."""

    starts: int
    reason: str = ""


def refill(level: WarmLevel) -> Refill:
    """Starts to make now. Never more than the target counting those in flight, never a slot that
    a waiting session could have, never the reserve; and not in the very moment in which a burst is
    being served, for a start takes the CPU that the apps need. How many starts one host bears at
    once is the placement's business."""
    missing = level.target - level.warm - level.warming
    if missing <= 0:
        return Refill(starts=0, reason="" if missing == 0 else "above target")
    if level.waiting > level.warm + level.outdated:
        return Refill(starts=0, reason="sessions are waiting")
    if level.arriving and level.postponed_s < _POSTPONE_MAX_S:
        return Refill(starts=0, reason=GIVING_WAY)
    room = level.totals.free_slots - level.reserve
    if room <= 0:
        return Refill(starts=0, reason="no free slot beside the reserve")
    return Refill(starts=min(missing, room))


def surplus(level: WarmLevel) -> int:
    """Warm sandboxes to let go of in this pass; the outdated go first. Replacing by a new image is
    gradual: as many go as new ones have come, or one at a time where there is no slot to grow."""
    above = level.warm + level.outdated - level.target
    if above > 0:
        return above
    stuck = level.outdated and level.totals.free_slots <= level.reserve and not level.warming
    return 1 if stuck else 0


def short_of_slots(totals: PoolTotals, reserve: int) -> int:
    """How many slots the pool lacks to keep its reserve free."""
    return max(0, reserve - totals.free_slots)
