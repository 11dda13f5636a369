"""How many sandboxes to keep warm, and how fast. services.pool.refill asks before each pass.

Also says how fast sandboxes are removed: neither may take the time of sessions that are arriving
(ADR 0060).
"""

from __future__ import annotations

from dataclasses import dataclass

# Most bursts on a warm pool are over by then, and the rest have all come.
_YIELD_S = 1.0
# The end of the largest ones. The pool is never left alone for longer.
_YIELD_MOST_S = 10.0
_LOW = 4  # a pool is low once less than a quarter of its target is left

SESSIONS_ARRIVING = "sessions are arriving"


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """Sessions that have a sandbox and are getting READY."""

    lasting_s: float  # for how long there have been some, without a gap
    newest_s: float  # how long ago the last of them was created

    @property
    def depends_on_stock(self) -> bool:
        """Whether the stock says what gives way to them. Sooner all does, and later nothing."""
        return _YIELD_S <= self.lasting_s < _YIELD_MOST_S


@dataclass(frozen=True, kw_only=True)
class Stock:
    """What the pool has for sessions, and what these lack."""

    target: int  # how many warm sandboxes there should be
    warm: int  # how many a session could claim, of any image
    waiting: int  # sessions in the queue that something of the pool would do for
    cold: int  # sessions for which a sandbox is being made, because none was warm

    @property
    def is_lacking(self) -> bool:
        """Whether somebody has come for whom none is warm."""
        return self.waiting > self.warm or self.cold > 0

    @property
    def is_low(self) -> bool:
        """Whether little is left once all who wait have got theirs."""
        left = self.warm - self.waiting
        return left <= 0 or left * _LOW < self.target


EMPTY = Stock(target=0, warm=0, waiting=0, cold=0)


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
    cold: int  # sessions for which a sandbox is being made, because none was warm
    arrivals: Arrivals | None  # None: nobody is arriving
    totals: PoolTotals

    @property
    def stock(self) -> Stock:
        warm = self.warm + self.outdated
        return Stock(target=self.target, warm=warm, waiting=self.waiting, cold=self.cold)


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
    missing = min(missing, calls_at_once(missing, level.arrivals, level.stock, begun=level.warming))
    if missing <= 0:
        return Refill(starts=0, reason=SESSIONS_ARRIVING)
    room = level.totals.free_slots - level.reserve
    if room <= 0:
        return Refill(starts=0, reason="no free slot beside the reserve")
    return Refill(starts=min(missing, room))


def calls_at_once(most: int, arrivals: Arrivals | None, stock: Stock, *, begun: int = 0) -> int:
    """How many starts and removals that nobody waits for may begin now, of `most` in quiet times.

    Each takes processor time that arriving sessions need. So while sessions are arriving, none
    begins as long as `gives_way` says so, and then one after the other. `begun`: how many go on
    already.
    """
    if arrivals is None:
        return most
    return 0 if gives_way(arrivals, stock) else max(0, 1 - begun)


def gives_way(arrivals: Arrivals, stock: Stock) -> bool:
    """Whether nobody needs the pool to go on at once.

    If somebody lacks a warm sandbox, those who come next do, too, and need slots that others leave.
    Whoever comes to a pool that is low gets one of the new ones. If nobody comes any more, the pool
    has time.
    """
    if not arrivals.depends_on_stock:
        return arrivals.lasting_s < _YIELD_S
    if stock.is_lacking:
        return False
    return not stock.is_low or arrivals.newest_s >= _YIELD_S


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
