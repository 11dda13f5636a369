"""What calls cost is reserved and written down; what costs nothing leads to few writes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from orchestrator import config
from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import errors
from orchestrator.domain.llm import requests
from orchestrator.domain.llm.budgets import Budgets, Spend
from orchestrator.domain.llm.pricing import Price, PriceList, Tariff, TokenCounts
from orchestrator.domain.llm.requests import ModelRequest
from orchestrator.domain.llm.usage import Outcome, Reservation
from orchestrator.domain.sessions.session import Session
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.gateway.accounts import Accounts
from orchestrator.services.llm.spending import CallResult
from tests.fakes import samples
from tests.fakes.hub import deaf_hub
from tests.fakes.samples import NOW
from tests.unit.services.world import World

_PRICE = Price(input=1, output=1, cache_write_5m=1, cache_write_1h=1, cache_read=1)
PRICES = PriceList(tariffs={"m": Tariff(base=_PRICE)})
NEVER_S = 3600.0  # no test waits for it
ENOUGH = Budgets(session=Spend(tokens=1_000_000))


def request(text: str = "Hello", max_tokens: int = 100) -> ModelRequest:
    body = {
        "model": "m",
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": text}],
    }
    return requests.parse(json.dumps(body).encode())


def result(outcome: Outcome, tokens: int = 0) -> CallResult:
    return CallResult(
        provider="anthropic",
        model="m",
        counts=TokenCounts(output=tokens),
        outcome=outcome,
        duration_ms=1,
    )


class Bank:
    """Accounts over a store, and the statements that it was sent."""

    def __init__(self, world: World, folder: Path, keep_s: float) -> None:
        self.context = Context(
            settings=config.make(state_dir=folder),
            deps=world.deps,
            hub=deaf_hub(),
            started_at=NOW,
        )
        self.store = world.store
        self.accounts = Accounts(self.context, "api", keep_s)
        self.writes = 0  # transactions
        self.session = self.add_session()

    def add_session(self, **changes: Any) -> Session:
        return self.store.sessions.add(samples.session(**changes), None, max_active=100)

    def count(self, *arguments: Any) -> None:
        self.writes += arguments[2].startswith("BEGIN")

    def spent(self, session: Session | None = None) -> int:
        key = f"session:{(session or self.session).id}"
        return self.store.usage.spent([key]).get(key, Spend()).tokens

    async def reserve(
        self, session: Session | None = None, wanted: ModelRequest | None = None
    ) -> Reservation:
        return await self.accounts.reserve(session or self.session, wanted or request(), ["m"])

    async def refused(self, *args: Any) -> Reservation:
        """Make a call that a provider refuses."""
        reservation = await self.reserve(*args)
        await self.accounts.settle(reservation, result(Outcome.REFUSED))
        return reservation

    async def settled(self) -> None:
        """Wait until all that was begun is written."""
        await asyncio.gather(*self.accounts._tasks)

    def metric(self, outcome: str, provider: str = "anthropic") -> float | None:
        return self.context.metrics.registry.get_sample_value(
            "spawn_llm_calls_total", {"provider": provider, "outcome": outcome}
        )


Script = Callable[[Bank], Awaitable[None]]
Banks = Callable[..., None]


@pytest.fixture
def bank(world: World, tmp_path: Path) -> Banks:
    """Runs a script with a bank."""

    def run(script: Script, budgets: Budgets = ENOUGH, keep_s: float = NEVER_S) -> None:
        world.policy = replace(world.policy, budgets=budgets, prices=PRICES)
        opened = Bank(world, tmp_path, keep_s)

        async def main() -> None:
            with counting(opened):
                await script(opened)
            await opened.accounts.close()

        asyncio.run(main())
        opened.context.threads.shutdown()

    return run


@contextmanager
def counting(bank: Bank) -> Iterator[None]:
    assert isinstance(bank.store, SqlStore)
    engine = bank.store._database._engine
    event.listen(engine, "before_cursor_execute", bank.count)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", bank.count)


def test_calls_that_cost_nothing_share_one_reservation(bank: Banks) -> None:
    async def script(bank: Bank) -> None:
        for _ in range(20):
            await bank.refused()
        assert bank.writes == 1
        assert bank.metric("refused") == 20

    bank(script)


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.FAILED, Outcome.CANCELLED])
def test_a_call_that_costs_something_after_one_that_did_not_is_accounted_for(
    bank: Banks, outcome: Outcome
) -> None:
    async def script(bank: Bank) -> None:
        await bank.accounts.settle(await bank.reserve(), result(outcome))
        await bank.accounts.settle(await bank.reserve(), result(Outcome.SERVED, tokens=7))
        assert bank.writes == 2
        assert bank.spent() == 7
        (total,) = bank.store.usage.session_sums(bank.session.id)
        assert (total.calls, total.counts.output) == (1, 7)

    bank(script)


def test_an_answer_that_used_something_leaves_no_reservation(bank: Banks) -> None:
    async def script(bank: Bank) -> None:
        for _ in range(3):
            await bank.accounts.settle(await bank.reserve(), result(Outcome.FAILED, tokens=7))
        assert (bank.writes, bank.spent()) == (6, 21)

    bank(script)


def test_calls_at_the_same_time_have_a_reservation_each(bank: Banks) -> None:
    async def script(bank: Bank) -> None:
        await bank.refused()
        first, second = await bank.reserve(), await bank.reserve()
        assert first.call_id != second.call_id
        assert bank.writes == 2
        assert bank.spent() == first.worst.tokens + second.worst.tokens

    bank(script)


def test_a_reservation_serves_its_session_and_no_dearer_call(bank: Banks) -> None:
    async def script(bank: Bank) -> None:
        kept = await bank.refused()
        assert (await bank.refused(bank.add_session())).call_id != kept.call_id
        larger = await bank.refused(None, request(max_tokens=101))
        assert larger.call_id != kept.call_id
        again = await bank.reserve(None, request(max_tokens=99))
        assert again.call_id in (kept.call_id, larger.call_id)

    bank(script)


def test_a_reservation_of_yesterday_serves_no_call_of_today(bank: Banks, world: World) -> None:
    async def script(bank: Bank) -> None:
        kept = await bank.refused()
        world.clock.advance(24 * 3600)
        assert (await bank.reserve()).call_id != kept.call_id

    bank(script)


def test_a_reservation_that_no_call_wants_is_given_back(bank: Banks) -> None:
    async def script(bank: Bank) -> None:
        await bank.refused()
        assert bank.spent() > 0
        async with asyncio.timeout(20):
            while bank.accounts._kept:
                await asyncio.sleep(0)
        await bank.settled()
        assert (bank.spent(), bank.writes) == (0, 2)
        assert (bank.metric("refused"), bank.metric("cancelled", "none")) == (1, None)

    bank(script, keep_s=0.0)


def test_what_is_kept_is_given_back_at_the_end(bank: Banks) -> None:
    async def script(bank: Bank) -> None:
        await bank.refused()
        await bank.accounts.close()
        assert bank.spent() == 0

    bank(script)


def test_what_is_kept_takes_no_room_from_other_calls_of_its_user(bank: Banks) -> None:
    async def script(bank: Bank) -> None:
        other = bank.add_session()
        bank.writes = 0
        first = await bank.refused()
        assert 3000 - first.worst.tokens < first.worst.tokens
        dearer = request(max_tokens=200)
        assert (await bank.reserve(other, dearer)).session_id == other.id
        assert (bank.spent(), bank.writes) == (0, 3)  # reserved, given back, reserved
        with pytest.raises(errors.LimitReached, match="calls under way"):
            await bank.reserve()

    bank(script, Budgets(user_day=Spend(tokens=3000)))


def test_what_is_kept_of_others_makes_room_in_the_installations_budget_alone(bank: Banks) -> None:
    async def script(bank: Bank) -> None:
        await bank.refused()
        stranger = bank.add_session(user_id="usr_" + "s" * 26)
        assert (await bank.reserve(stranger)).session_id == stranger.id
        assert bank.spent() == 0

    bank(script, Budgets(day=Spend(tokens=3000)))


def test_who_has_nothing_left_makes_the_database_write_nothing(bank: Banks) -> None:
    async def script(bank: Bank) -> None:
        for _ in range(3):
            with pytest.raises(errors.BudgetExhausted):
                await bank.reserve()
        assert bank.writes == 0
        refusals = bank.context.metrics.registry.get_sample_value(
            "spawn_llm_budget_refusals_total", {"scope": "session"}
        )
        assert refusals == 3

    bank(script, Budgets(session=Spend(tokens=500)))


def test_who_is_cancelled_while_it_reserves_leaves_a_reservation_that_is_given_back(
    bank: Banks,
) -> None:
    async def script(bank: Bank) -> None:
        reserving = asyncio.create_task(bank.reserve())
        await asyncio.sleep(0)
        reserving.cancel()
        await asyncio.gather(reserving, return_exceptions=True)
        await bank.settled()
        assert bank.metric("cancelled", "none") == 1
        await bank.accounts.close()
        assert bank.spent() == 0

    bank(script)
