"""How long to wait between attempts. Pure.

The one retry policy of the agent: used for requests to home, and by the generator for the model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential backoff with full jitter, so that a thousand agents don't return in step."""

    first_s: float
    cap_s: float

    def ceiling_s(self, attempt: int) -> float:
        """The longest delay before retry number `attempt` (0 is the first retry)."""
        return min(self.cap_s, self.first_s * 2.0 ** min(attempt, 30))

    def delay_s(self, attempt: int) -> float:
        """The delay before that retry, at random between 0 and `ceiling_s`."""
        # os.urandom: the random module would import hashlib and with it OpenSSL.
        return self.ceiling_s(attempt) * int.from_bytes(os.urandom(4), "big") / 2**32


HOME_BACKOFF = Backoff(first_s=0.05, cap_s=2.0)
