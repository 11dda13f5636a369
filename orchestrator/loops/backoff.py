"""Back-off per item: what failed is left alone for a while, ever longer with each failure in a row.

The bulkheads use it for sandboxes, the launcher for hosts.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator import ports

_MAX_S = 30.0
_DOUBLINGS_MAX = 10
_FORGET_AFTER = timedelta(minutes=10)  # since the pause has ended; longer than any attempt takes


@dataclass(frozen=True, kw_only=True)
class _Failures:
    """The failures of one item in a row."""

    count: int
    not_before: datetime  # the next attempt


class Backoff:
    """Pauses of 1, 2, 4 s and so on, at most 30 s. Several threads may use it."""

    def __init__(self, clock: ports.Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[str, _Failures] = {}

    def fail(self, item: str) -> float:
        """Record a failure. Returns the seconds until the next attempt.

        A failure within a pause is of an attempt that began before it, and doesn't count again.
        """
        now = self._clock.now()
        with self._lock:
            self._forget_old(now)
            last = self._failures.get(item)
            if last is not None and now < last.not_before:
                return (last.not_before - now).total_seconds()
            count = 1 if last is None else last.count + 1
            pause_s = min(2.0 ** min(count - 1, _DOUBLINGS_MAX), _MAX_S)
            not_before = now + timedelta(seconds=pause_s)
            self._failures[item] = _Failures(count=count, not_before=not_before)
        return pause_s

    def succeed(self, item: str) -> None:
        """Forget the failures of an item."""
        with self._lock:
            self._failures.pop(item, None)

    def is_pausing(self, item: str) -> bool:
        return item in self.pausing()

    def pausing(self) -> Collection[str]:
        """The items that are to be left alone now."""
        now = self._clock.now()
        with self._lock:
            return {item for item, failures in self._failures.items() if now < failures.not_before}

    def _forget_old(self, now: datetime) -> None:
        """Forget the items that nobody has tried since: most are sandboxes that are gone."""
        self._failures = {
            item: failures
            for item, failures in self._failures.items()
            if now - failures.not_before < _FORGET_AFTER
        }
