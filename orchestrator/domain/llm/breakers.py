"""The circuit breaker of one provider: whether it is worth asking. Pure; times are seconds of any
monotonic clock. The gateway keeps one per provider and process.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.domain import errors

FAILURES_TO_OPEN = 5  # one after the other: one bad minute is not an outage
REST_S = 10.0


class BreakerState(enum.StrEnum):
    """What happens to the next call."""

    CLOSED = "closed"  # it is made
    OPEN = "open"  # it is not, until the provider has rested
    HALF_OPEN = "half_open"  # one call is under way to see whether the provider is back


class Signal(enum.StrEnum):
    """What moves a breaker."""

    TRIP = "trip"  # too many failures, or the trial call failed
    TRY = "try"  # the rest is over, and somebody makes the trial call
    ABANDON = "abandon"  # the trial call was cancelled and says nothing
    RECOVER = "recover"  # the trial call was answered


MOVES: Mapping[tuple[BreakerState, Signal], BreakerState] = {
    (BreakerState.CLOSED, Signal.TRIP): BreakerState.OPEN,
    (BreakerState.OPEN, Signal.TRY): BreakerState.HALF_OPEN,
    (BreakerState.HALF_OPEN, Signal.TRIP): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, Signal.ABANDON): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, Signal.RECOVER): BreakerState.CLOSED,
}


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """One provider's breaker."""

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0  # in a row, while CLOSED
    opened_at_s: float = 0.0


def ready_at_s(breaker: Breaker, now_s: float) -> float:
    """When a call may be made; now, if it may."""
    if breaker.state is BreakerState.CLOSED:
        return now_s
    if breaker.state is BreakerState.OPEN:
        return max(now_s, breaker.opened_at_s + REST_S)
    return now_s + 1.0  # the trial call tells; look again


def begun(breaker: Breaker) -> Breaker:
    """A call is about to be made, which `ready_at_s` has allowed."""
    return _moved(breaker, Signal.TRY) if breaker.state is BreakerState.OPEN else breaker


def answered(breaker: Breaker) -> Breaker:
    """The provider answered, whatever it said: it is there."""
    if breaker.state is BreakerState.HALF_OPEN:
        return replace(_moved(breaker, Signal.RECOVER), failures=0)
    # A late answer to a call from before says nothing about a provider that has failed since.
    return breaker if breaker.state is BreakerState.OPEN else replace(breaker, failures=0)


def failed(breaker: Breaker, now_s: float) -> Breaker:
    """The provider did not answer, or said that it can't."""
    if breaker.state is BreakerState.OPEN:
        return breaker
    failures = breaker.failures + 1
    if breaker.state is BreakerState.CLOSED and failures < FAILURES_TO_OPEN:
        return replace(breaker, failures=failures)
    return replace(_moved(breaker, Signal.TRIP), failures=failures, opened_at_s=now_s)


def abandoned(breaker: Breaker) -> Breaker:
    """A call was cancelled before anything came back. A trial call leaves its turn to another."""
    if breaker.state is BreakerState.HALF_OPEN:
        return _moved(breaker, Signal.ABANDON)
    return breaker


def _moved(breaker: Breaker, signal: Signal) -> Breaker:
    to = MOVES.get((breaker.state, signal))
    if to is None:
        raise errors.IllegalMove(f"a breaker that is {breaker.state} can't {signal}")
    return replace(breaker, state=to)
