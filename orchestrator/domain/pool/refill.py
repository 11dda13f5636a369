"""How many sandboxes to keep warm, and how fast. services.pool.refill asks before each pass.

Also says how fast sandboxes are removed: neither may take the time of sessions that are arriving.
"""

from __future__ import annotations

from dataclasses import dataclass

# A burst on a warm pool is over by then. Whoever arrives for longer gets new sandboxes at the same
# time, and slots that others leave, so the pool has to go on, one after the other.
_YIELD_S = 1.0

SESSIONS_ARRIVING = "sessions are arriving"


@dataclass(frozen=True, kw_only=True)
class PoolTotals:
    """Sums over all hosts that take placements."""

    hosts: int
    slots: int
    free_slots: int


@dataclass(frozen=True, kw_only=True)
class WarmLevel:
    """Everything that a refill decision depends on."""

    target: int  # how many warm sandboxes there should be
    reserve: int  # slots that must stay free for sessions
    warm: int  # WARM sandboxes of the current image that a session could claim
    outdated: int  # WARM sandboxes of an older image that a session could claim
    warming: int  # sandboxes that are CREATING for the warm pool, and not for too long
    waiting: int  # sessions in the queue that something of the pool would do for
    arriving_s: float | None  # for how long sessions with a sandbox have been getting READY, if any
    totals: PoolTotals


@dataclass(frozen=True, kw_only=True)
class Refill:
    """How many warm sandboxes to start in this pass, and the reason if none."""

    starts: int
    reason: str = ""


def refill(level: WarmLevel) -> Refill:
    """Decide how many warm sandboxes to start now.

    Together with those being created they never exceed the target. They take no slot that a waiting
    session needs, and none of the reserve. How many starts one host can run at once is
    up to the placement.
    """
    missing = level.target - level.warm - level.warming
    if missing <= 0:
        return Refill(starts=0, reason="" if missing == 0 else "above target")
    if level.waiting > level.warm + level.outdated:
        return Refill(starts=0, reason="sessions are waiting")
    missing = min(missing, calls_at_once(missing, level.arriving_s, begun=level.warming))
    if missing <= 0:
        return Refill(starts=0, reason=SESSIONS_ARRIVING)
    room = level.totals.free_slots - level.reserve
    if room <= 0:
        return Refill(starts=0, reason="no free slot beside the reserve")
    return Refill(starts=min(missing, room))


def calls_at_once(most: int, arriving_s: float | None, *, begun: int = 0) -> int:
    """How many starts and removals that nobody waits for may begin now, of `most` in quiet times.

    Each takes processor time that arriving sessions need. `arriving_s`: for how long they have been
    arriving; None: none are. `begun`: how many go on already.
    """
    if arriving_s is None:
        return most
    return max(0, 1 - begun) if arriving_s >= _YIELD_S else 0


def surplus(level: WarmLevel) -> int:
    """How many warm sandboxes to retire in this pass, outdated ones first.

    Outdated ones are replaced gradually: as many are retired as new ones have become WARM. If no
    slot is free for a new one, one at a time is retired to free a slot.
    """
    excess = level.warm + level.outdated - level.target
    if excess > 0:
        return excess
    has_no_slot = level.totals.free_slots <= level.reserve and not level.warming
    return 1 if level.outdated and has_no_slot else 0


def missing_slots(totals: PoolTotals, reserve: int) -> int:
    """How many free slots are missing from the reserve."""
    return max(0, reserve - totals.free_slots)
