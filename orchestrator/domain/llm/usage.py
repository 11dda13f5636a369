"""Accounting of calls to the model: one call, and sums over many."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime

from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.llm.budgets import Spend
from orchestrator.domain.llm.pricing import TokenCounts


class Outcome(enum.StrEnum):
    """How a call ended."""

    SERVED = "served"  # the provider's whole answer arrived
    REFUSED = "refused"  # the provider refused the request; nothing was billed
    FAILED = "failed"  # no provider answered; billed in full if one got the call
    CANCELLED = "cancelled"  # the client disconnected; billed up to there
    CUT = "cut"  # the provider's answer broke off; billed in full unless it said how much
    LOST = "lost"  # the process that sent it died; its cost is unknown


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """A call that is about to be sent, and what is reserved for it."""

    call_id: str
    session_id: SessionId
    user_id: UserId
    model: str
    worst: Spend  # the most that it can cost
    day: date  # UTC; the call is settled in this day's accounts, even if it ends after midnight
    holder: str  # the process that sends the call, and renews the reservation while it lives
    expires_at: datetime
    change: int = 0  # the number of the change that it serves; 0: the first version


# Nobody answered such a call. Whoever makes the requests can have any number of them.
_WITHOUT_ANSWER = frozenset({Outcome.REFUSED, Outcome.FAILED, Outcome.CANCELLED})


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call that has ended: one row of the usage table, if it `is_recorded`."""

    call_id: str
    session_id: SessionId
    user_id: UserId
    model: str  # the one that was requested
    provider: str  # the last one that answered; "" if none was tried
    counts: TokenCounts
    micro_usd: int
    duration_ms: int  # from the request's arrival to the end of the answer
    at: datetime  # when it ended
    day: date  # as in its reservation
    outcome: Outcome
    change: int = 0  # as in its reservation

    @property
    def is_recorded(self) -> bool:
        """Whether the history keeps it. What nobody answered and nobody bills is only counted in
        the metrics: an app gets such refusals as fast as it asks."""
        is_free = not self.counts.total and not self.micro_usd
        return not (is_free and self.outcome in _WITHOUT_ANSWER)


class GroupBy(enum.StrEnum):
    """What calls are grouped by before they are summed up."""

    USER = "user"
    DAY = "day"
    MODEL = "model"
    SESSION = "session"
    PROVIDER = "provider"


@dataclass(frozen=True, kw_only=True)
class UsageSum:
    """The sum over one group of calls."""

    key: str  # the user, day (ISO), model, session or provider
    calls: int
    counts: TokenCounts
    micro_usd: int
    last_at: datetime
