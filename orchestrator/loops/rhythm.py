"""How long a loop waits between two passes: briefly while something happens, longer at rest.

Events wake the loops. Their intervals are for what no event tells: a time that has come, a pause
that is over, a wake-up that was lost. While something happens there is much of that, and somebody
waits for it.
"""

from __future__ import annotations

REST_AFTER_S = 10.0  # without anything that happens


class Rhythm:
    """The rhythm of one loop. Times are of the monotonic clock."""

    def __init__(self, every_s: float, rest_s: float | None, now: float) -> None:
        """`rest_s`: the interval at rest; None: as at other times. A new loop is not at rest."""
        self._every_s = every_s
        self._rest_s = every_s if rest_s is None else rest_s
        self._rests_from = now + REST_AFTER_S

    def note(self, now: float) -> None:
        """Something has happened: an event has woken the loop, or a pass did something."""
        self._rests_from = now + REST_AFTER_S

    def wait_s(self, now: float) -> float:
        """The longest time until the next pass."""
        return self._rest_s if now >= self._rests_from else self._every_s
