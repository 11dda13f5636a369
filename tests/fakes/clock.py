"""A clock that tests set: ports.Clock."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.fakes.samples import NOW


class ManualClock:
    """Stands still at NOW until a test moves it."""

    def __init__(self, start: datetime = NOW) -> None:
        self._now = start
        self.ahead = timedelta()  # the machine's clock, of this one
        self.ahead_since: datetime | None = None

    def now(self) -> datetime:
        return self._now

    def offset(self) -> timedelta:
        return self.ahead

    def jumped_at(self) -> datetime | None:
        return self.ahead_since if self.ahead else None

    def advance(self, seconds: float) -> datetime:
        """Let `seconds` pass; returns the new time."""
        self._now += timedelta(seconds=seconds)
        return self._now

    def jump_to(self, at: datetime) -> None:
        """Move forward to `at`. A time in the past changes nothing."""
        self._now = max(self._now, at)
