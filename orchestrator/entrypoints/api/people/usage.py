"""Endpoints for the cost of calls to the model: the caller's own, and for operators everybody's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from orchestrator.domain.llm import budgets
from orchestrator.domain.llm.budgets import Account, Spend
from orchestrator.domain.llm.pricing import MICRO
from orchestrator.domain.llm.usage import GroupBy, UsageSum
from orchestrator.entrypoints.api import auth, long_reads
from orchestrator.entrypoints.api.answers import usage as answers
from orchestrator.entrypoints.api.auth import Caller
from orchestrator.entrypoints.api.context import context_of
from orchestrator.entrypoints.api.views import Shown
from orchestrator.services.llm import spending

router = APIRouter(prefix="/api", tags=["usage"])
admin_router = APIRouter(prefix="/api/admin", tags=["admin"], dependencies=[Depends(auth.operator)])

Limit = Annotated[int, Query(ge=1, le=1000)]
Days = Annotated[int, Query(ge=1, le=366)]


@router.get("/usage", summary="Own usage", response_model=answers.Usage)
async def own(request: Request, principal: Caller, days: Days = 30) -> Response:
    """The caller's calls of the last `days` days, and what is left of today's budget."""
    context = context_of(request)
    now = context.deps.clock.now()
    since = now - timedelta(days=days)

    def sums(by: GroupBy, limit: int) -> list[answers.Sum]:
        usage = context.deps.store.usage
        of_user = usage.sums(by, since=since, user_id=principal.user_id, limit=limit)
        return sums_as_json(of_user, context.shown)

    def read() -> answers.Usage:
        account, spent = spending.get_user_budget(context.deps, principal.user_id, now)
        return {
            "since": context.shown(since),
            "by_day": sums(GroupBy.DAY, days + 1),
            "by_model": sums(GroupBy.MODEL, 100),
            "by_session": sums(GroupBy.SESSION, 100),
            "budget": _budget(account, spent, context.shown),
        }

    return await long_reads.answer(request, principal, read)


@admin_router.get("/usage", summary="Everybody's usage")
def everybodys(
    request: Request, by: GroupBy = GroupBy.DAY, days: Days = 30, limit: Limit = 100
) -> answers.EverybodysUsage:
    """Everybody's calls of the last `days` days, by user, day, model, session or provider."""
    context = context_of(request)
    since = context.deps.clock.now() - timedelta(days=days)
    sums = context.deps.store.usage.sums
    by_day = sums(GroupBy.DAY, since=since, limit=1000)
    return {
        "by": by,
        "since": context.shown(since),
        "prices_of": context.deps.policy.prices.date,
        "rows": sums_as_json(sums(by, since=since, limit=limit), context.shown),
        "total": add_up(sums_as_json(by_day, context.shown)),
    }


def sums_as_json(sums: Sequence[UsageSum], shown: Shown) -> list[answers.Sum]:
    """Sums of calls as JSON. `cost_usd` is exact to the micro-dollar."""
    return [
        {
            "key": group.key,
            "calls": group.calls,
            "input_tokens": group.counts.input,
            "output_tokens": group.counts.output,
            "cache_write_tokens": group.counts.cache_write_5m + group.counts.cache_write_1h,
            "cache_read_tokens": group.counts.cache_read,
            "cost_usd": group.micro_usd / MICRO,
            "last_at": shown(group.last_at),
        }
        for group in sums
    ]


def add_up(rows: Sequence[answers.Sum]) -> answers.Total:
    """The sum of what `sums_as_json` returned."""
    return {
        "calls": sum(row["calls"] for row in rows),
        "input_tokens": sum(row["input_tokens"] for row in rows),
        "output_tokens": sum(row["output_tokens"] for row in rows),
        "cache_write_tokens": sum(row["cache_write_tokens"] for row in rows),
        "cache_read_tokens": sum(row["cache_read_tokens"] for row in rows),
        "cost_usd": round(sum(row["cost_usd"] for row in rows), 6),
    }


def _budget(account: Account, spent: Spend, shown: Shown) -> answers.Budget:
    """Today's budget. `null` means no limit. What running calls have reserved counts as spent."""
    tokens, micro_usd = budgets.remaining(spent, account.limit)
    return {
        "limit_usd": account.limit.micro_usd / MICRO if account.limit.micro_usd else None,
        "left_usd": None if micro_usd is None else micro_usd / MICRO,
        "limit_tokens": account.limit.tokens or None,
        "left_tokens": tokens,
        "renews_at": None if account.renews_at is None else shown(account.renews_at),
    }
