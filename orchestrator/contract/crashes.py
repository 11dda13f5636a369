"""When an app that crashed is started again, and when it is given up. Pure: time is an argument.

The agent acts on it (`app_crashed`); documents quote the figures.
"""

from __future__ import annotations

FIRST_DELAY_S = 0.5
WINDOW_S = 60.0
CRASHES_MAX = 5


class CrashHistory:
    """The crashes of one app within the last WINDOW_S seconds."""

    def __init__(self) -> None:
        self._at_s: list[float] = []

    def restart_delay_s(self, now_s: float) -> float | None:
        """Record a crash. Return the pause before the next start: 0.5, 1, 2, 4 s.

        None at the fifth crash within a minute: the app is given up.
        """
        self._at_s = [at_s for at_s in self._at_s if now_s - at_s < WINDOW_S] + [now_s]
        if len(self._at_s) >= CRASHES_MAX:
            return None
        return FIRST_DELAY_S * 2.0 ** (len(self._at_s) - 1)
