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
from orchestrator.services.rates import Rate, Rates

SHARE = Rate(per_s=0.1, burst=2.0)  # seconds of processor time


class WorkShares:
    """What each principal has used of its share. Threads may share it."""

    def __init__(
        self,
        refusals: RefusalCounter,
        rate: Rate = SHARE,
        now_s: Callable[[], float] = time.monotonic,
        advice: str = "it takes too long to read all that you send: send less, and fewer values",
    ) -> None:
        """`advice` is what a principal is told that has used up its share."""
        self._refusals = refusals
        self._rates = Rates(rate)
        self._now_s = now_s
        self._advice = advice

    @contextlib.contextmanager
    def reading(self, principal: str) -> Iterator[None]:
        """Wrap the work, in the thread that does it. Raises errors.LimitReached (too_much_work) if
        the principal has used up its share."""
        wait_s = self._rates.take(principal, self._now_s(), 0.0)
        if wait_s:
            self._refusals.inc()
            raise errors.LimitReached(
                self._advice,
                code="too_much_work",
                retry_after_s=wait_s,
            )
        began_s = time.thread_time()
        try:
            yield
        finally:
            self._rates.charge(principal, self._now_s(), time.thread_time() - began_s)
