"""ports.Clock: the real clock."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """Returns timezone-aware UTC."""

    def now(self) -> datetime:
        return datetime.now(UTC)
