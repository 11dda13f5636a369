"""What was spent on calls to the model: one's own, and for operators everybody's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from orchestrator.domain.llm import budgets
from orchestrator.domain.llm.budgets import Account, Spend
from orchestrator.domain.llm.pricing import MICRO
from orchestrator.domain.llm.usage import By, UsageSum
from orchestrator.entrypoints.api import auth
from orchestrator.entrypoints.api.auth import Caller
from orchestrator.entrypoints.api.context import context_of
from orchestrator.services.llm import spending

router = APIRouter(prefix="/api", tags=["usage"])
admin_router = APIRouter(prefix="/api/admin", tags=["admin"], dependencies=[Depends(auth.operator)])

Limit = Annotated[int, Query(ge=1, le=1000)]
Days = Annotated[int, Query(ge=1, le=366)]


@router.get("/usage")
def own(request: Request, who: Caller, days: Days = 30) -> dict[str, Any]:
    """The caller's calls of the last days, and what is left of today's budget."""
    context = context_of(request)
    now = context.deps.clock.now()
    since = now - timedelta(days=days)
    account, spent = spending.standing(context.deps, who.user_id, now)
    sums = context.deps.store.usage.sums
    return {
        "since": since.isoformat(),
        "by_day": rows(sums(By.DAY, since=since, user_id=who.user_id, limit=days + 1)),
        "by_model": rows(sums(By.MODEL, since=since, user_id=who.user_id)),
        "by_session": rows(sums(By.SESSION, since=since, user_id=who.user_id)),
        "budget": _budget(account, spent),
    }


@admin_router.get("/usage")
def everybodys(
    request: Request, by: By = By.DAY, days: Days = 30, limit: Limit = 100
) -> dict[str, Any]:
    """Everybody's calls of the last days, summed up by user, day, model, session or provider."""
    context = context_of(request)
    since = context.deps.clock.now() - timedelta(days=days)
    found = context.deps.store.usage.sums(by, since=since, limit=limit)
    return {
        "by": by,
        "since": since.isoformat(),
        "prices_of": context.deps.policy.prices.date,
        "rows": rows(found),
        "total": total(rows(context.deps.store.usage.sums(By.DAY, since=since, limit=1000))),
    }


def rows(sums: Sequence[UsageSum]) -> list[dict[str, Any]]:
    """Sums of calls as JSON. `cost_usd` is exact to the micro-dollar."""
    return [
        {
            "key": one.key,
            "calls": one.calls,
            "input_tokens": one.counts.input,
            "output_tokens": one.counts.output,
            "cache_write_tokens": one.counts.cache_write_5m + one.counts.cache_write_1h,
            "cache_read_tokens": one.counts.cache_read,
            "cost_usd": one.micro_usd / MICRO,
            "last_at": one.last_at.isoformat(),
        }
        for one in sums
    ]


def total(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `rows` add up to."""
    names = ("calls", "input_tokens", "output_tokens", "cache_write_tokens", "cache_read_tokens")
    sums: dict[str, Any] = {name: sum(part[name] for part in parts) for name in names}
    return {**sums, "cost_usd": round(sum(part["cost_usd"] for part in parts), 6)}


def _budget(account: Account, spent: Spend) -> dict[str, Any]:
    """Of today. `null` where there is no limit; what is set aside for calls under way is spent."""
    tokens, micro_usd = budgets.left(spent, account.limit)
    return {
        "limit_usd": account.limit.micro_usd / MICRO if account.limit.micro_usd else None,
        "left_usd": None if micro_usd is None else micro_usd / MICRO,
        "limit_tokens": account.limit.tokens or None,
        "left_tokens": tokens,
        "renews_at": None if account.renews_at is None else account.renews_at.isoformat(),
    }
