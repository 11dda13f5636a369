"""Terms and leases that tests can end or slow down: ports.Term, ports.Leases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from orchestrator import ports
from orchestrator.domain import errors


class TermThatEnds:
    """A term that lasts until the test sets `is_over`."""

    def __init__(self, number: int = 1) -> None:
        self.number = number
        self.is_over = False
        self.checks = 0
        self.checks_left: int | None = None  # it ends by itself after so many checks

    def check(self) -> None:
        self.checks += 1
        if self.checks_left is not None:
            self.checks_left -= 1
            self.is_over = self.is_over or self.checks_left < 0
        if self.is_over:
            raise errors.TermOver("another daemon may lead")


class Seconds:
    """A clock that a test moves, as seconds since the boot."""

    def __init__(self) -> None:
        self.value = 1000.0

    def __call__(self) -> float:
        return self.value


class LeasesThatTakeLong:
    """Leases of a slow database: each renewal takes some seconds of the given clock."""

    def __init__(self, leases: ports.Leases, clock: Seconds, takes_s: float) -> None:
        self._leases = leases
        self._clock = clock
        self._takes_s = takes_s

    def hold(self, name: str, holder: str, until: datetime, now: datetime) -> int | None:
        number = self._leases.hold(name, holder, until, now)
        self._clock.value += self._takes_s
        return number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._leases, name)


class StoreWithLeases:
    """A store with other leases than its own."""

    def __init__(self, store: ports.Store, leases: Any) -> None:
        self._store = store
        self.leases = leases

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
