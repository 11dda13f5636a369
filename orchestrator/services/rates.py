"""How often something may happen for each principal: token buckets, and samples of what is logged.

Both keep a bounded number of keys in memory and forget the one that was used least recently, so
that nobody fills the memory with names. Times are seconds of any clock; threads may share them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

_KEYS_MAX = 10_000
_ROUNDING = 1e-3  # of a token: a caller that waits as long as it was told must be allowed

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Rate:
    """So many tokens per second in the long run, and `burst` at once."""

    per_s: float
    burst: float


class Rates:
    """One token bucket per key."""

    def __init__(self, rate: Rate, keys_max: int = _KEYS_MAX) -> None:
        self._rate = rate
        self._buckets: _Recent[_Bucket] = _Recent(keys_max)
        self._lock = threading.Lock()

    def take(self, key: str, now_s: float, amount: float = 1.0) -> float:
        """Take tokens, all or none. 0: they are taken; otherwise in how many seconds they can be.

        `amount` is at most the burst.
        """
        with self._lock:
            tokens = self._tokens(key, now_s)
            wait_s = self._wait_s(tokens, amount)
            left = tokens if wait_s else tokens - amount
            self._buckets.put(key, _Bucket(tokens=left, at_s=now_s))
        return wait_s

    def wait(self, key: str, now_s: float, amount: float = 1.0) -> float:
        """What `take` would return. Takes nothing."""
        with self._lock:
            return self._wait_s(self._tokens(key, now_s), amount)

    def charge(self, key: str, now_s: float, amount: float) -> None:
        """Take tokens for what has been used already, also those that aren't there yet.

        A negative amount gives tokens back.
        """
        with self._lock:
            tokens = min(self._rate.burst, self._tokens(key, now_s) - amount)
            self._buckets.put(key, _Bucket(tokens=tokens, at_s=now_s))

    def _wait_s(self, tokens: float, amount: float) -> float:
        is_allowed = tokens >= amount - _ROUNDING
        return 0.0 if is_allowed else (amount - tokens) / self._rate.per_s

    def _tokens(self, key: str, now_s: float) -> float:
        rate = self._rate
        last = self._buckets.get(key)
        if last is None:
            return rate.burst
        return min(rate.burst, last.tokens + max(0.0, now_s - last.at_s) * rate.per_s)


class Samples:
    """Lets one event per key and period through, and counts those in between."""

    def __init__(self, period_s: float, keys_max: int = _KEYS_MAX) -> None:
        self._period_s = period_s
        self._seen: _Recent[_Seen] = _Recent(keys_max)
        self._lock = threading.Lock()

    def take(self, key: str, now_s: float) -> int | None:
        """How many events of this key were left out since the last one. None: leave this one
        out."""
        with self._lock:
            last = self._seen.get(key)
            if last is not None and 0 <= now_s - last.at_s < self._period_s:
                self._seen.put(key, _Seen(at_s=last.at_s, skipped=last.skipped + 1))
                return None
            self._seen.put(key, _Seen(at_s=now_s, skipped=0))
        return 0 if last is None else last.skipped


@dataclass(frozen=True, kw_only=True)
class _Bucket:
    tokens: float  # below 0: more was used than was there
    at_s: float


@dataclass(frozen=True, kw_only=True)
class _Seen:
    at_s: float  # when the last event was let through
    skipped: int  # since then


class _Recent(Generic[_T]):
    """Values by key, without the keys that were used least recently."""

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._values: OrderedDict[str, _T] = OrderedDict()

    def get(self, key: str) -> _T | None:
        return self._values.get(key)

    def put(self, key: str, value: _T) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._keys_max:
            self._values.popitem(last=False)
