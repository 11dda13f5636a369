"""What a call costs: tokens by kind, prices by model, money in whole micro-dollars.

bootstrap reads the price list from `orchestrator/prices.toml`. services.llm.spending uses it before
a call (the most it can cost) and after it (what it did cost).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from decimal import Decimal
from typing import Any

from orchestrator.domain import errors
from orchestrator.domain.llm.requests import CacheWrite, ModelRequest

MICRO = 1_000_000
_DATED = re.compile(r"(?P<name>.+)-\d{8}")


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """Tokens of one or more calls, by kind of price."""

    input: int = 0  # not cached: neither written to nor read from the provider's prompt cache
    output: int = 0  # including thinking
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_read: int = 0

    def __add__(self, other: TokenCounts) -> TokenCounts:
        mine, theirs = vars(self), vars(other)
        return TokenCounts(**{kind: mine[kind] + theirs[kind] for kind in mine})

    @property
    def prompt(self) -> int:
        """All tokens that were sent, cached or not."""
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
    long: Price | None = None  # for requests whose prompt has more than `above` tokens
    above: int = 0

    def price_for(self, prompt_tokens: int) -> Price:
        return self.long if self.long is not None and prompt_tokens > self.above else self.base

    def cost(self, counts: TokenCounts) -> int:
        """Micro-dollars, rounded up."""
        pairs = zip(astuple(counts), astuple(self.price_for(counts.prompt)), strict=True)
        total: int = sum(tokens * each for tokens, each in pairs)
        return -(-total // MICRO)


@dataclass(frozen=True, kw_only=True)
class PriceList:
    """The tariffs of all models, and the day on which they were looked up."""

    date: str = ""
    tariffs: Mapping[str, Tariff] = field(default_factory=dict)

    def tariff_for(self, model: str) -> Tariff:
        """The tariff of a model, with or without a date in its name.

        A model that isn't listed gets `dearest`.
        """
        dated = _DATED.fullmatch(model)
        tariff = self.tariffs.get(model) or (self.tariffs.get(dated["name"]) if dated else None)
        return tariff or self.dearest()

    def dearest(self) -> Tariff:
        """The highest listed price of each kind. Raises errors.InvalidInput for an empty list."""
        prices = [tariff.long or tariff.base for tariff in self.tariffs.values()]
        if not prices:
            raise errors.InvalidInput("the price list is empty", field="prices")
        highest = {kind: max(getattr(price, kind) for price in prices) for kind in _KINDS}
        return Tariff(base=Price(**highest))


_KINDS = tuple(Price.__dataclass_fields__)


def worst_case(request: ModelRequest, tariff: Tariff) -> int:
    """The most that a request can cost, in micro-dollars.

    That is all of its input at the dearest price that may apply, and as much output as it allows.
    """
    price = tariff.price_for(request.input_bound)
    input_price = {
        CacheWrite.NONE: price.input,
        CacheWrite.FIVE_MINUTES: max(price.input, price.cache_write_5m),
        CacheWrite.ONE_HOUR: max(price.input, price.cache_write_5m, price.cache_write_1h),
    }[request.cache_write]
    total = request.input_bound * input_price + request.max_tokens * price.output
    return -(-total // MICRO)


def parse(text: str) -> PriceList:
    """Parse the text of prices.toml. Raises errors.InvalidInput, which names the model."""
    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise errors.InvalidInput(
            f"the price list is not valid TOML: {error}", field="prices"
        ) from error
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
