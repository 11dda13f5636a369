"""The real clock: ports.Clock."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """Timezone-aware UTC."""

    def now(self) -> datetime:
        return datetime.now(UTC)
