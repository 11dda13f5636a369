"""When an app that crashed is started again, and when it is given up. Pure: time is an argument.

Both give up with the code `app_crashed`. The agent restarts an app whose process ends. The control
plane recovers an app that takes its whole sandbox down. Documents quote the figures.
"""

from __future__ import annotations

FIRST_DELAY_S = 0.5
WINDOW_S = 60.0
CRASHES_MAX = 5

# The control plane's part. The first recovery is immediate: most sandboxes are lost only once.
RECOVERY_WINDOW_S = 3600.0
RECOVERIES_MAX = 10  # within the window; the next crash ends the session
WARM_RECOVERIES_MAX = 2  # later ones start a sandbox of their own: warm ones are for others
RECOVERY_PAUSE_MAX_S = 300.0


def recovery_pause_s(crashes: int) -> float:
    """The pause before the recovery after crash number `crashes` within the window.

    None before the first, then 1, 2, 4 s and so on up to 5 minutes.
    """
    return 0.0 if crashes <= 1 else min(2.0 ** (crashes - 2), RECOVERY_PAUSE_MAX_S)


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
