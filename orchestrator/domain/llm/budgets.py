"""Budgets: what a session, a user and the installation may spend, in tokens and in money.

A call is entered in the accounts with the most that it can come to, before it is made; afterwards
the entry is corrected to what it came to. The store does both in a transaction each.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.llm.pricing import MICRO


@dataclass(frozen=True, kw_only=True)
class Spend:
    """Tokens of all kinds, and micro-dollars."""

    tokens: int = 0
    micro_usd: int = 0


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """Limits as operators set them. 0 is no limit."""

    session: Spend = field(default_factory=Spend)  # for as long as the session lives
    user_day: Spend = field(default_factory=Spend)  # per user and day (UTC)
    day: Spend = field(default_factory=Spend)  # of the whole installation, per day (UTC)


class Scope(enum.StrEnum):
    """Whose budget an account is; as messages call it."""

    SESSION = "session's"
    USER = "user's daily"
    INSTALLATION = "installation's daily"


@dataclass(frozen=True, kw_only=True)
class Account:
    """One row of the accounts table: what has been spent or set aside there, against a limit."""

    key: str
    scope: Scope
    limit: Spend
    renews_at: datetime | None  # None: never


def accounts(
    budgets: Budgets, session_id: SessionId, user_id: UserId, day: date
) -> Sequence[Account]:
    """The accounts that a call is entered in, in the order in which they are locked."""
    renews_at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    all_three = (
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
    # One order for everybody, or two calls would wait for each other.
    return sorted(all_three, key=lambda account: account.key)


def fits(spent: Spend, wanted: Spend, limit: Spend) -> bool:
    """Whether so much more may be spent."""
    return (not limit.tokens or spent.tokens + wanted.tokens <= limit.tokens) and (
        not limit.micro_usd or spent.micro_usd + wanted.micro_usd <= limit.micro_usd
    )


def left(spent: Spend, limit: Spend) -> tuple[int | None, int | None]:
    """Tokens and micro-dollars that are left; None where there is no limit."""
    return (
        max(0, limit.tokens - spent.tokens) if limit.tokens else None,
        max(0, limit.micro_usd - spent.micro_usd) if limit.micro_usd else None,
    )


def exhausted(account: Account, spent: Spend, wanted: Spend) -> errors.BudgetExhausted:
    """The refusal of a call that doesn't fit: what is left, what it needed, when there is more."""
    tokens, micro_usd = left(spent, account.limit)
    parts = []
    if micro_usd is not None:
        parts.append(f"{dollars(micro_usd)} of {dollars(account.limit.micro_usd)}")
    if tokens is not None:
        parts.append(f"{tokens:,} of {account.limit.tokens:,} tokens")
    need = f"up to {dollars(wanted.micro_usd)} and {wanted.tokens:,} tokens"
    renewal = (
        "it does not renew"
        if account.renews_at is None
        else f"it renews at {account.renews_at:%Y-%m-%d %H:%M} UTC"
    )
    return errors.BudgetExhausted(
        f"The {account.scope} budget is used up: {' and '.join(parts)} left, this call may need"
        f" {need}; {renewal}.",
        scope=account.scope.name.lower(),
        left_tokens=tokens,
        left_micro_usd=micro_usd,
        renews_at=None if account.renews_at is None else account.renews_at.isoformat(),
    )


def dollars(micro_usd: int) -> str:
    """For people: "$0.0042", "$12.50"."""
    amount = micro_usd / MICRO
    return f"${amount:.2f}" if amount >= 1 or not micro_usd else f"${amount:.4f}"
