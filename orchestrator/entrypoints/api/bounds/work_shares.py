"""The processor time that each principal may take: for reading what it sends, in agent app and
gateway, and for the long lists that it asks for, in the public app.

No other thread of Python runs meanwhile, so whoever takes much takes the time of all the others.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from orchestrator.domain import errors
from orchestrator.entrypoints.api.bounds.holds import RefusalCounter
from orchestrator.entrypoints.api.bounds.layered_rates import LayeredRates, Layers
from orchestrator.services.rates import Rate

SHARE = Rate(per_s=0.1, burst=2.0)  # seconds of processor time; the most of one principal
_FLOOR = Rate(per_s=0.02, burst=0.5)
_USER = Rate(per_s=0.15, burst=3.0)
_TOTAL = Rate(per_s=0.4, burst=6.0)


def layers_of(own: Rate) -> Layers:
    """The shares of sandboxes or sessions, each of which has `own` at most."""
    return Layers(own=own, floor=_FLOOR, user=_USER, total=_TOTAL)


class WorkShares:
    """What each principal has used of its share. Threads may share it."""

    def __init__(
        self,
        refusals: RefusalCounter,
        shares: Layers,
        now_s: Callable[[], float] = time.monotonic,
        advice: str = "it takes too long to read all that you send: send less, and fewer values",
    ) -> None:
        """`advice` is what a principal is told that has used up its share."""
        self._refusals = refusals
        self._rates = LayeredRates(shares)
        self._now_s = now_s
        self._advice = advice

    @contextlib.contextmanager
    def reading(self, principal: str, user: str = "") -> Iterator[None]:
        """Wrap the work, in the thread that does it. Raises errors.LimitReached (too_much_work) if
        the principal, its user or all together have used up their share."""
        delay = self._rates.delay(principal, user, self._now_s())
        if delay is not None:
            self._refusals.inc()
            raise errors.LimitReached(
                self._advice,
                code="too_much_work",
                retry_after_s=delay.wait_s,
            )
        began_s = time.thread_time()
        try:
            yield
        finally:
            used_s = time.thread_time() - began_s
            self._rates.charge(principal, user, self._now_s(), used_s)
