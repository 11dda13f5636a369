"""Back-off per item: what failed is left alone for a while, ever longer with each failure in a row.

The bulkheads use it for sandboxes and hosts, the passes for hosts on which their work crashed.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator import ports

_DOUBLINGS_MAX = 10


@dataclass(frozen=True, kw_only=True)
class _Failures:
    """The failures of one item in a row."""

    count: int
    not_before: datetime  # the next attempt


class Backoff:
    """Pauses of `first_s`, twice as long and so on, at most `longest_s`. Threads may share it."""

    def __init__(
        self,
        clock: ports.Clock,
        *,
        first_s: float = 1.0,
        longest_s: float = 30.0,
        forget_after_s: float = 600.0,
    ) -> None:
        """An item that wasn't tried for `forget_after_s` since its pause ended starts anew. That is
        longer than any attempt takes."""
        self._clock = clock
        self._first_s = first_s
        self._longest_s = longest_s
        self._forget_after = timedelta(seconds=forget_after_s)
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
            doublings = min(count - 1, _DOUBLINGS_MAX)
            pause_s = min(self._first_s * 2.0**doublings, self._longest_s)
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
        """Forget the items that nobody has tried since: most of them are gone."""
        self._failures = {
            item: failures
            for item, failures in self._failures.items()
            if now - failures.not_before < self._forget_after
        }
