"""Budgets: how much a session, a user and the installation may spend, in tokens and in money.

Before a call is sent, the store adds its worst case to the accounts. When the call has ended, the
store corrects the accounts to what it really cost. Each of the two is one transaction.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.llm.pricing import MICRO

_RESERVED_RETRY_S = 5.0  # calls take seconds to minutes


@dataclass(frozen=True, kw_only=True)
class Spend:
    """An amount: tokens of all kinds, and micro-dollars."""

    tokens: int = 0
    micro_usd: int = 0

    def __sub__(self, other: Spend) -> Spend:
        return Spend(tokens=self.tokens - other.tokens, micro_usd=self.micro_usd - other.micro_usd)


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """The limits that operators set. 0 means no limit."""

    session: Spend = field(default_factory=Spend)  # per session, in all its life
    user_day: Spend = field(default_factory=Spend)  # per user and day (UTC)
    day: Spend = field(default_factory=Spend)  # the whole installation, per day (UTC)


class Scope(enum.StrEnum):
    """Whose budget an account belongs to, as messages name it."""

    SESSION = "session's"
    USER = "user's daily"
    INSTALLATION = "installation's daily"


@dataclass(frozen=True, kw_only=True)
class Account:
    """The key and the limit of one row of the accounts table."""

    key: str
    scope: Scope
    limit: Spend
    renews_at: datetime | None  # None: never


def accounts(
    budgets: Budgets, session_id: SessionId, user_id: UserId, day: date
) -> Sequence[Account]:
    """The accounts of a call, in the order in which the store locks them."""
    renews_at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    unsorted = (
        Account(
            key=f"session:{session_id}",
            scope=Scope.SESSION,
            limit=budgets.session,
            renews_at=None,
        ),
        Account(
            key=f"user:{user_id}:{day.isoformat()}",
            scope=Scope.USER,
            limit=budgets.user_day,
            renews_at=renews_at,
        ),
        Account(
            key=f"day:{day.isoformat()}",
            scope=Scope.INSTALLATION,
            limit=budgets.day,
            renews_at=renews_at,
        ),
    )
    # Every call locks in the same order, or two calls could wait for each other for ever.
    return sorted(unsorted, key=lambda account: account.key)


def fits(spent: Spend, wanted: Spend, limit: Spend) -> bool:
    """Whether `wanted` may be spent on top of `spent`."""
    return (not limit.tokens or spent.tokens + wanted.tokens <= limit.tokens) and (
        not limit.micro_usd or spent.micro_usd + wanted.micro_usd <= limit.micro_usd
    )


def remaining(spent: Spend, limit: Spend) -> tuple[int | None, int | None]:
    """The tokens and micro-dollars that are left. None: no limit."""
    return (
        max(0, limit.tokens - spent.tokens) if limit.tokens else None,
        max(0, limit.micro_usd - spent.micro_usd) if limit.micro_usd else None,
    )


def refusal(account: Account, spent: Spend, reserved: Spend, wanted: Spend) -> errors.SpawnError:
    """The error for a call that doesn't fit on top of `spent`, of which calls under way have
    reserved a part. They cost less than that, nearly always: it may fit when they have ended."""
    if fits(spent - reserved, wanted, account.limit):
        return _reserved_error(account, spent - reserved, wanted)
    return _exhausted_error(account, spent, wanted)


def _reserved_error(account: Account, spent: Spend, wanted: Spend) -> errors.LimitReached:
    left, need = _left(account, spent), _need(wanted)
    return errors.LimitReached(
        f"The {account.scope} budget has {left} left, but calls under way may need so much of it"
        f" that this call, which may need {need}, has to wait until they have ended.",
        code="budget_reserved",
        retry_after_s=_RESERVED_RETRY_S,
        scope=account.scope.name.lower(),
    )


def _exhausted_error(account: Account, spent: Spend, wanted: Spend) -> errors.BudgetExhausted:
    """It says what is left, and when the budget renews."""
    tokens, micro_usd = remaining(spent, account.limit)
    renewal = (
        "it does not renew"
        if account.renews_at is None
        else f"it renews at {account.renews_at:%Y-%m-%d %H:%M} UTC"
    )
    return errors.BudgetExhausted(
        f"The {account.scope} budget is used up: {_left(account, spent)} left, this call may need"
        f" {_need(wanted)}; {renewal}.",
        scope=account.scope.name.lower(),
        left_tokens=tokens,
        left_micro_usd=micro_usd,
        renews_at=None if account.renews_at is None else account.renews_at.isoformat(),
    )


def _left(account: Account, spent: Spend) -> str:
    tokens, micro_usd = remaining(spent, account.limit)
    parts = []
    if micro_usd is not None:
        parts.append(f"{dollars(micro_usd)} of {dollars(account.limit.micro_usd)}")
    if tokens is not None:
        parts.append(f"{tokens:,} of {account.limit.tokens:,} tokens")
    return " and ".join(parts)


def _need(wanted: Spend) -> str:
    return f"up to {dollars(wanted.micro_usd)} and {wanted.tokens:,} tokens"


def dollars(micro_usd: int) -> str:
    """An amount for people: "$0.0042", "$12.50"."""
    amount = micro_usd / MICRO
    return f"${amount:.2f}" if amount >= 1 or not micro_usd else f"${amount:.4f}"
