"""When a crashed app is started again, and when not any more. Pure: `now_s` is an argument."""

from __future__ import annotations

FIRST_DELAY_S = 0.5
WINDOW_S = 60.0
MAX_CRASHES = 5


class CrashHistory:
    """The crashes of one app within the last WINDOW_S."""

    def __init__(self) -> None:
        self._at_s: list[float] = []

    def restart_delay_s(self, now_s: float) -> float | None:
        """Record a crash: 0.5, 1, 2, 4 s until the next start; None at the fifth in a minute."""
        self._at_s = [at_s for at_s in self._at_s if now_s - at_s < WINDOW_S] + [now_s]
        if len(self._at_s) >= MAX_CRASHES:
            return None
        return FIRST_DELAY_S * 2.0 ** (len(self._at_s) - 1)
