"""Accounting of calls to the model: what one call was, and sums over many."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime

from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.llm.budgets import Spend
from orchestrator.domain.llm.pricing import TokenCounts


class Outcome(enum.StrEnum):
    """How a call ended."""

    SERVED = "served"  # the provider's answer arrived whole
    REFUSED = "refused"  # the provider turned the request down; nothing was billed
    FAILED = "failed"  # no provider answered; nothing was billed
    CANCELLED = "cancelled"  # the client went away in the middle; billed as far as it came
    CUT = "cut"  # the provider's answer broke off; billed as far as it came
    LOST = "lost"  # the process that made it died: what it cost is not known


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """A call about to be made, and what is set aside for it."""

    call_id: str
    session_id: SessionId
    user_id: UserId
    model: str
    worst: Spend
    day: date  # UTC; the call is settled in this day's accounts, even when it ends after midnight
    holder: str  # the process that makes the call, and renews the reservation while it lives
    expires_at: datetime
    change: int = 0  # the session's change that it is made for; 0: the first version


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call that is over: a row of the usage table."""

    call_id: str
    session_id: SessionId
    user_id: UserId
    model: str  # as it was asked for
    provider: str  # who answered last; "" when nobody was asked
    counts: TokenCounts
    micro_usd: int
    duration_ms: int  # from the request's arrival to the end of the answer
    at: datetime  # when it ended
    day: date  # of its reservation
    outcome: Outcome
    change: int = 0  # of its reservation


class By(enum.StrEnum):
    """What calls are summed up by."""

    USER = "user"
    DAY = "day"
    MODEL = "model"
    SESSION = "session"
    PROVIDER = "provider"


@dataclass(frozen=True, kw_only=True)
class UsageSum:
    """Calls that have something in common, summed up."""

    key: str  # the user, day (ISO), model, session or provider
    calls: int
    counts: TokenCounts
    micro_usd: int
    last_at: datetime
