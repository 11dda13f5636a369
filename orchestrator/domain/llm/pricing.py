"""What a call costs: tokens by kind, prices by model, money as whole micro-dollars.

Prices are read from `orchestrator/prices.toml` by bootstrap; services ask them before a call (what
may it cost at most?) and after it (what did it cost?).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from decimal import Decimal
from typing import Any

from orchestrator.domain import errors
from orchestrator.domain.llm.requests import Ask, CacheWrite

MICRO = 1_000_000
_DATED = re.compile(r"(?P<name>.+)-\d{8}")


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """Tokens of one or many calls, by what they cost."""

    input: int = 0  # neither written to nor read from the provider's prompt cache
    output: int = 0  # thinking included
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_read: int = 0

    @property
    def prompt(self) -> int:
        """All that was sent, cached or not."""
        return self.input + self.cache_write_5m + self.cache_write_1h + self.cache_read

    @property
    def total(self) -> int:
        return self.prompt + self.output


@dataclass(frozen=True, kw_only=True)
class Price:
    """Micro-dollars per million tokens: $2.50 per million is 2,500,000."""

    input: int
    output: int
    cache_write_5m: int
    cache_write_1h: int
    cache_read: int


@dataclass(frozen=True, kw_only=True)
class Tariff:
    """The prices of one model."""

    base: Price
    long: Price | None = None  # of requests whose prompt is longer than `above`
    above: int = 0  # tokens

    def at(self, prompt_tokens: int) -> Price:
        return self.long if self.long is not None and prompt_tokens > self.above else self.base

    def cost(self, counts: TokenCounts) -> int:
        """Micro-dollars, rounded up."""
        pairs = zip(astuple(counts), astuple(self.at(counts.prompt)), strict=True)
        total: int = sum(tokens * each for tokens, each in pairs)
        return -(-total // MICRO)


@dataclass(frozen=True, kw_only=True)
class PriceList:
    """All tariffs, and the day on which they were true."""

    date: str = ""
    tariffs: Mapping[str, Tariff] = field(default_factory=dict)

    def of(self, model: str) -> Tariff:
        """The tariff of a model; for one that isn't listed, the dearest known of everything."""
        dated = _DATED.fullmatch(model)
        known = self.tariffs.get(model) or (self.tariffs.get(dated["name"]) if dated else None)
        return known or self.dearest()

    def dearest(self) -> Tariff:
        """An estimate that no listed model exceeds. Raises InvalidInput for an empty list."""
        known = [tariff.long or tariff.base for tariff in self.tariffs.values()]
        if not known:
            raise errors.InvalidInput("the price list is empty", field="prices")
        return Tariff(base=Price(**{kind: max(getattr(p, kind) for p in known) for kind in _KINDS}))


_KINDS = tuple(Price.__dataclass_fields__)


def worst_case(ask: Ask, tariff: Tariff) -> int:
    """Micro-dollars that a request can cost at most: all of its input at the dearest price that
    may apply to it, and as much output as it allows."""
    price = tariff.at(ask.input_bound)
    each = {
        CacheWrite.NONE: price.input,
        CacheWrite.FIVE_MINUTES: max(price.input, price.cache_write_5m),
        CacheWrite.ONE_HOUR: max(price.input, price.cache_write_5m, price.cache_write_1h),
    }[ask.cache_write]
    return -(-(ask.input_bound * each + ask.max_tokens * price.output) // MICRO)


def parse(text: str) -> PriceList:
    """The price list from the text of prices.toml. Raises InvalidInput that names the model."""
    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise errors.InvalidInput(f"the price list is no TOML: {error}", field="prices") from error
    return PriceList(
        date=str(data.get("date", "")),
        tariffs={model: _tariff(model, row) for model, row in data.get("models", {}).items()},
    )


def _tariff(model: str, row: Mapping[str, Any]) -> Tariff:
    try:
        long = row.get("long")
        return Tariff(
            base=_price(row),
            long=None if long is None else _price(long),
            above=int(row.get("above", 0)),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise errors.InvalidInput(
            f"the price of {model} needs {', '.join(_KINDS)}, in dollars per million tokens",
            field=f"models.{model}",
        ) from error


def _price(row: Mapping[str, Any]) -> Price:
    return Price(**{kind: int(Decimal(row[kind]) * MICRO) for kind in _KINDS})
