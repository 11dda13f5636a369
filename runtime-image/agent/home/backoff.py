"""How long to wait between attempts. Pure; the one retry policy of the agent."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential back-off with full jitter: a thousand agents must not come back in step."""

    first_s: float
    cap_s: float

    def ceiling_s(self, attempt: int) -> float:
        """The longest delay before retry number `attempt` (0 is the first retry)."""
        return min(self.cap_s, self.first_s * 2.0 ** min(attempt, 30))

    def delay_s(self, attempt: int) -> float:
        # os.urandom: the random module would import hashlib and with it OpenSSL.
        return self.ceiling_s(attempt) * int.from_bytes(os.urandom(4), "big") / 2**32


HOME_BACKOFF = Backoff(first_s=0.05, cap_s=2.0)
