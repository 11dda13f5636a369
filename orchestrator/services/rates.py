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
    """So many per second in the long run, and `burst` at once."""

    per_s: float
    burst: float


class Rates:
    """One token bucket per key."""

    def __init__(self, rate: Rate, keys_max: int = _KEYS_MAX) -> None:
        self._rate = rate
        self._buckets: _Recent[_Bucket] = _Recent(keys_max)
        self._lock = threading.Lock()

    def take(self, key: str, now_s: float) -> float:
        """Take one token. 0: it may happen now; otherwise in how many seconds it may."""
        rate = self._rate
        with self._lock:
            last = self._buckets.get(key) or _Bucket(tokens=rate.burst, at_s=now_s)
            tokens = min(rate.burst, last.tokens + max(0.0, now_s - last.at_s) * rate.per_s)
            is_allowed = tokens >= 1 - _ROUNDING
            left = max(0.0, tokens - 1) if is_allowed else tokens
            self._buckets.put(key, _Bucket(tokens=left, at_s=now_s))
        return 0.0 if is_allowed else (1 - tokens) / rate.per_s


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
    tokens: float
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
