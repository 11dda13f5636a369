"""Prices: what a call costs, and the most that it can cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import orchestrator
from orchestrator.domain import errors
from orchestrator.domain.llm import pricing, requests
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.domain.llm.requests import CacheWrite, ModelRequest

PRICES = pricing.parse((Path(orchestrator.__file__).parent / "prices.toml").read_text())
counts = st.integers(min_value=0, max_value=requests.CONTEXT_TOKENS)


def request(model: str, input_bound: int, max_tokens: int, cache_write: CacheWrite) -> ModelRequest:
    return ModelRequest(
        model=model,
        max_tokens=max_tokens,
        stream=True,
        input_bound=input_bound,
        cache_write=cache_write,
        body={},
    )


def test_a_price_is_per_kind_of_token_and_in_whole_micro_dollars_rounded_up() -> None:
    tariff = PRICES.tariff_for("claude-sonnet-5-5")
    million = TokenCounts(
        input=1_000_000,
        output=1_000_000,
        cache_write_5m=1_000_000,
        cache_write_1h=1_000_000,
        cache_read=1_000_000,
    )
    assert tariff.cost(million) == 18_600_000  # 2 + 10 + 2.50 + 4 + 0.10 dollars
    assert tariff.cost(TokenCounts(cache_read=1)) == 1
    assert tariff.cost(TokenCounts()) == 0


def test_a_long_prompt_has_its_own_price_cached_tokens_included() -> None:
    tariff = PRICES.tariff_for("claude-haiku-5-5")
    assert tariff.cost(TokenCounts(input=100_000)) == 10_000
    assert tariff.cost(TokenCounts(input=1, cache_read=100_000)) == 5_001


def test_a_dated_name_has_the_price_of_its_model_and_an_unknown_one_the_dearest() -> None:
    assert PRICES.tariff_for("claude-haiku-4-5-20251001") == PRICES.tariff_for("claude-haiku-4-5")
    unknown = PRICES.tariff_for("somebody-elses-model").base
    for tariff in PRICES.tariffs.values():
        price = tariff.long or tariff.base
        assert unknown.output >= price.output
        assert unknown.cache_read >= price.cache_read


def test_a_list_that_lacks_a_price_names_the_model() -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        pricing.parse('[models.claude-x]\ninput = 1.0\noutput = "much"\n')
    assert caught.value.detail["field"] == "models.claude-x"
    with pytest.raises(errors.InvalidInput):
        pricing.parse("not toml")
    with pytest.raises(errors.InvalidInput):
        pricing.PriceList().tariff_for("claude-x")


@given(
    model=st.sampled_from([*PRICES.tariffs, "unknown"]),
    shares=st.tuples(counts, counts, counts, counts),
    output=counts,
    cache_write=st.sampled_from(CacheWrite),
)
def test_no_call_within_its_bounds_costs_more_than_its_worst_case(
    model: str, shares: tuple[int, int, int, int], output: int, cache_write: CacheWrite
) -> None:
    """This holds however the input is split into plain, cached and written tokens."""
    plain, read, short, long = shares
    used = TokenCounts(
        input=plain,
        output=output,
        cache_read=read,
        cache_write_5m=short if cache_write >= CacheWrite.FIVE_MINUTES else 0,
        cache_write_1h=long if cache_write is CacheWrite.ONE_HOUR else 0,
    )
    call = request(model, used.prompt, output, cache_write)
    tariff = PRICES.tariff_for(model)
    assert tariff.cost(used) <= pricing.worst_case(call, tariff)
