"""What calls to the model cost."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from orchestrator.domain.llm.usage import GroupBy
from orchestrator.entrypoints.api.answers.base import Time

Usd = Annotated[float, Field(description="Exact to the micro-dollar.")]


class Total(TypedDict):
    """A sum of calls."""

    calls: int
    input_tokens: int
    output_tokens: int
    cache_write_tokens: int
    cache_read_tokens: int
    cost_usd: Usd


class Sum(Total):
    """The sum of a group of calls."""

    key: Annotated[str, Field(description="The user, day, model, session or provider.")]
    last_at: Time


class Budget(TypedDict):
    """Today's budget. Null: there is no limit. What running calls have reserved counts as spent."""

    limit_usd: float | None
    left_usd: float | None
    limit_tokens: int | None
    left_tokens: int | None
    renews_at: Time | None


class Usage(TypedDict):
    """The caller's calls."""

    since: Time
    by_day: list[Sum]
    by_model: list[Sum]
    by_session: list[Sum]
    budget: Budget


class SessionUsage(Total):
    """The calls for one session."""

    by_provider: list[Sum]


class EverybodysUsage(TypedDict):
    """Everybody's calls."""

    by: GroupBy
    since: Time
    prices_of: Annotated[str, Field(description="The day on which the prices were valid.")]
    rows: list[Sum]
    total: Total
