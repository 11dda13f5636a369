"""How long somebody has been silent, without the time during which we ourselves did not look.

The supervisor judges its child processes by it, and the daemon its loops. Both look at every tick.
"""

from __future__ import annotations


class Watchdog:
    """The eyes of a watching process.

    A watcher that looks late has slept with the whole machine, was stopped, or got no CPU time.
    Those whom it watches may have had none either, so everybody's silence counts from then on.
    """

    def __init__(self, late_s: float) -> None:
        """`late_s`: with this many seconds since the last look, we were late ourselves."""
        self._late_s = late_s
        self._looked_at = float("-inf")
        self._awake_since = float("inf")

    def look(self, now: float) -> None:
        """Say that we look now. Times are seconds of one clock that nobody sets."""
        if now - self._looked_at > self._late_s:
            self._awake_since = now
        self._looked_at = now

    def silence_s(self, sign_at: float, now: float) -> float:
        """For how long we know of no sign of life since the one at `sign_at`."""
        return max(0.0, now - max(sign_at, self._awake_since))
