"""The circuit breaker of one provider: whether to send it calls. Pure.

The gateway keeps one breaker per provider and process. Times are seconds of any monotonic clock.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.domain import errors

FAILURES_TO_OPEN = 5  # in a row: single failures are no outage
OPEN_FOR_S = 10.0
TRIAL_S = 150.0  # a trial call that has told nothing by then is given up


class BreakerState(enum.StrEnum):
    """What happens to the next call."""

    CLOSED = "closed"  # it is sent
    OPEN = "open"  # it is not sent, until OPEN_FOR_S have passed
    HALF_OPEN = "half_open"  # it waits: a trial call finds out whether the provider is back


class Signal(enum.StrEnum):
    """What makes a breaker change its state."""

    TRIP = "trip"  # too many calls failed, or the trial call did
    TRY = "try"  # OPEN_FOR_S have passed, and a trial call is sent
    ABANDON = (
        "abandon"  # the trial call told nothing: it was cancelled, or no fault of the provider
    )
    RECOVER = "recover"  # the trial call was answered


TRANSITIONS: Mapping[tuple[BreakerState, Signal], BreakerState] = {
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
    tried_at_s: float = 0.0  # when the trial call was sent, while HALF_OPEN
    trial_s: float = TRIAL_S  # longer than the wait for a first byte


def ready_at_s(breaker: Breaker, now_s: float) -> float:
    """When the next call may be sent. `now_s`: at once."""
    if breaker.state is BreakerState.CLOSED:
        return now_s
    if breaker.state is BreakerState.OPEN:
        return max(now_s, breaker.opened_at_s + OPEN_FOR_S)
    if now_s >= breaker.tried_at_s + breaker.trial_s:
        return now_s
    return now_s + 1.0  # ask again: the trial call will have been answered or not


def record_start(breaker: Breaker, now_s: float) -> Breaker:
    """A call is about to be sent. `ready_at_s` has allowed it."""
    if breaker.state is BreakerState.CLOSED:
        return breaker
    if breaker.state is BreakerState.HALF_OPEN:  # the last trial call told nothing in time
        breaker = _transition(breaker, Signal.ABANDON)
    return replace(_transition(breaker, Signal.TRY), tried_at_s=now_s)


def record_answer(breaker: Breaker) -> Breaker:
    """The provider answered, with success or not: it is reachable."""
    if breaker.state is BreakerState.HALF_OPEN:
        return replace(_transition(breaker, Signal.RECOVER), failures=0)
    # A late answer to an earlier call says nothing about a provider that has failed since.
    return breaker if breaker.state is BreakerState.OPEN else replace(breaker, failures=0)


def record_failure(breaker: Breaker, now_s: float) -> Breaker:
    """The provider did not answer, or reported that it is in trouble."""
    if breaker.state is BreakerState.OPEN:
        return breaker
    failures = breaker.failures + 1
    if breaker.state is BreakerState.CLOSED and failures < FAILURES_TO_OPEN:
        return replace(breaker, failures=failures)
    return replace(_transition(breaker, Signal.TRIP), failures=failures, opened_at_s=now_s)


def record_nothing(breaker: Breaker) -> Breaker:
    """A call ended without telling anything about the provider: it was cancelled, or it failed by
    a fault of ours or of our client's. If it was the trial call, send another at once."""
    if breaker.state is BreakerState.HALF_OPEN:
        return _transition(breaker, Signal.ABANDON)
    return breaker


def _transition(breaker: Breaker, signal: Signal) -> Breaker:
    to = TRANSITIONS.get((breaker.state, signal))
    if to is None:
        raise errors.IllegalTransition(f"a breaker that is {breaker.state} can't {signal}")
    return replace(breaker, state=to)
