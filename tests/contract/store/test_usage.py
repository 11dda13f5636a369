"""ports.Usage: concurrent calls never pass a budget, and every call is accounted once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from orchestrator.adapters.sql_store import SqlStore, schema
from orchestrator.adapters.sql_store import usage as sql_usage
from orchestrator.domain import errors, ids
from orchestrator.domain.llm.budgets import Budgets, Spend
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.domain.llm.usage import Call, GroupBy, Outcome, Reservation, UsageSum
from tests.contract.store.steps import run_together
from tests.fakes.samples import NOW, USER, later

ROOT = Path(__file__).parents[3]
DAY = date(2026, 3, 1)
SESSION = ids.SessionId("ses_" + "s" * 26)
FREE = Budgets()
TEN = Budgets(session=Spend(tokens=10), user_day=Spend(tokens=100), day=Spend(micro_usd=1000))


def reservation(number: int = 1, **changes: Any) -> Reservation:
    fields: dict[str, Any] = {
        "call_id": f"call_{number}",
        "session_id": SESSION,
        "user_id": USER,
        "model": "claude-x",
        "worst": Spend(tokens=10, micro_usd=100),
        "day": DAY,
        "holder": "api-1",
        "expires_at": later(60),
    }
    return Reservation(**{**fields, **changes})


def call_of(reserved: Reservation, **changes: Any) -> Call:
    fields: dict[str, Any] = {
        "call_id": reserved.call_id,
        "session_id": reserved.session_id,
        "user_id": reserved.user_id,
        "model": reserved.model,
        "provider": "anthropic",
        "counts": TokenCounts(input=1, output=2, cache_read=1),
        "micro_usd": 40,
        "duration_ms": 1500,
        "at": later(5),
        "day": reserved.day,
        "outcome": Outcome.SERVED,
    }
    return Call(**{**fields, **changes})


def spent(store: SqlStore) -> dict[str, tuple[int, int]]:
    keys = [f"session:{SESSION}", f"user:{USER}:{DAY}", f"day:{DAY}"]
    spends = store.usage.spent(keys)
    return {key.partition(":")[0]: (spend.tokens, spend.micro_usd) for key, spend in spends.items()}


def test_a_call_reserves_its_worst_case_and_is_corrected_to_its_cost(
    store: SqlStore,
) -> None:
    assert spent(store) == {}
    store.usage.reserve(reservation(), TEN, NOW)
    assert spent(store) == dict.fromkeys(("session", "user", "day"), (10, 100))
    store.usage.settle(call_of(reservation()))
    store.usage.settle(call_of(reservation()))
    assert spent(store) == dict.fromkeys(("session", "user", "day"), (4, 40))


NOT_ANSWERED = [Outcome.REFUSED, Outcome.FAILED, Outcome.CANCELLED]


@pytest.mark.parametrize("outcome", NOT_ANSWERED)
def test_a_call_that_nobody_answers_or_bills_leaves_no_row(
    store: SqlStore, outcome: Outcome
) -> None:
    for number in range(3):
        store.usage.reserve(reservation(number), TEN, NOW)
        free = call_of(reservation(number), counts=TokenCounts(), micro_usd=0, outcome=outcome)
        store.usage.settle(free)
        store.usage.settle(free)
        assert spent(store) == dict.fromkeys(("session", "user", "day"), (0, 0))
    assert store.usage.session_sums(SESSION) == []


@pytest.mark.parametrize("outcome", NOT_ANSWERED)
def test_a_call_that_may_have_cost_something_is_recorded(store: SqlStore, outcome: Outcome) -> None:
    store.usage.reserve(reservation(), TEN, NOW)
    store.usage.settle(call_of(reservation(), outcome=outcome))
    (usage,) = store.usage.session_sums(SESSION)
    assert (usage.calls, usage.micro_usd) == (1, 40)


def test_an_answer_without_tokens_is_recorded(store: SqlStore) -> None:
    store.usage.reserve(reservation(), TEN, NOW)
    store.usage.settle(call_of(reservation(), counts=TokenCounts(), micro_usd=0))
    (usage,) = store.usage.session_sums(SESSION)
    assert (usage.calls, usage.micro_usd) == (1, 0)


@pytest.mark.parametrize(
    ("budgets", "scope"),
    [
        (Budgets(session=Spend(tokens=19)), "session"),
        (Budgets(session=Spend(micro_usd=199)), "session"),
        (Budgets(user_day=Spend(tokens=19)), "user"),
        (Budgets(day=Spend(micro_usd=199)), "installation"),
    ],
)
def test_a_call_that_exceeds_a_budget_is_refused_and_changes_no_account(
    store: SqlStore, budgets: Budgets, scope: str
) -> None:
    store.usage.reserve(reservation(1), budgets, NOW)
    store.usage.settle(call_of(reservation(1), counts=TokenCounts(input=10), micro_usd=100))
    before = spent(store)
    with pytest.raises(errors.BudgetExhausted) as caught:
        store.usage.reserve(reservation(2), budgets, NOW)
    assert caught.value.detail["scope"] == scope
    assert spent(store) == before


OTHER = {"session_id": ids.SessionId("ses_2"), "user_id": ids.UserId("usr_2")}
YESTERDAY = date(2026, 2, 28)


@pytest.mark.parametrize(
    ("budgets", "scope", "others"),
    [
        (Budgets(session=Spend(tokens=19)), "session", OTHER),
        (Budgets(session=Spend(micro_usd=199)), "session", OTHER),
        (Budgets(user_day=Spend(tokens=19)), "user", OTHER),
        (Budgets(user_day=Spend(tokens=19)), "user", {"day": YESTERDAY}),
        (Budgets(day=Spend(micro_usd=199)), "installation", {**OTHER, "day": YESTERDAY}),
    ],
)
def test_a_call_for_which_others_have_reserved_too_much_may_come_later(
    store: SqlStore, budgets: Budgets, scope: str, others: dict[str, Any]
) -> None:
    store.usage.reserve(reservation(1), budgets, NOW)
    before = spent(store)
    with pytest.raises(errors.LimitReached) as caught:
        store.usage.reserve(reservation(2), budgets, NOW)
    assert (caught.value.code, caught.value.detail["scope"]) == ("budget_reserved", scope)
    assert spent(store) == before
    # What counts elsewhere is no reason to wait: here the budget is used up.
    store.usage.settle(call_of(reservation(1), counts=TokenCounts(input=10), micro_usd=100))
    store.usage.reserve(reservation(3, **others), FREE, NOW)
    with pytest.raises(errors.BudgetExhausted):
        store.usage.reserve(reservation(2), budgets, NOW)


def test_a_call_fits_when_one_that_reserved_more_has_ended(store: SqlStore) -> None:
    store.usage.reserve(reservation(1), Budgets(day=Spend(tokens=15)), NOW)
    with pytest.raises(errors.LimitReached):
        store.usage.reserve(reservation(2), Budgets(day=Spend(tokens=15)), NOW)
    store.usage.settle(call_of(reservation(1)))
    store.usage.reserve(reservation(2), Budgets(day=Spend(tokens=15)), NOW)


def test_the_first_call_of_all_is_refused_too_when_it_is_too_large(store: SqlStore) -> None:
    with pytest.raises(errors.BudgetExhausted):
        store.usage.reserve(reservation(), Budgets(session=Spend(tokens=9)), NOW)
    assert spent(store) == {}


def test_a_budget_can_be_used_to_its_last_token_and_renews_with_the_day(store: SqlStore) -> None:
    daily = Budgets(user_day=Spend(tokens=20))
    store.usage.reserve(reservation(1), daily, NOW)
    store.usage.reserve(reservation(2), daily, NOW)
    with pytest.raises(errors.LimitReached):
        store.usage.reserve(reservation(3), daily, NOW)
    store.usage.reserve(reservation(4, day=date(2026, 3, 2)), daily, NOW)


def test_concurrent_calls_never_pass_a_budget(store: SqlStore) -> None:
    admitted: list[int] = []
    refused: list[int] = []
    budgets = Budgets(day=Spend(tokens=300))

    def call(number: int) -> None:
        session = ids.SessionId(f"ses_{number}")
        try:
            store.usage.reserve(reservation(number, session_id=session), budgets, NOW)
        except errors.LimitReached:
            refused.append(number)
        else:
            admitted.append(number)

    run_together([lambda number=number: call(number) for number in range(50)])
    assert (len(admitted), len(refused)) == (30, 20)
    assert spent(store)["day"] == (300, 3000)


def test_concurrent_reservations_and_settlements_keep_the_accounts_exact(store: SqlStore) -> None:
    def call(number: int) -> None:
        session = ids.SessionId(f"ses_{number % 3}")
        mine = reservation(
            number, session_id=session, expires_at=later(-1 if number % 5 == 0 else 60)
        )
        store.usage.reserve(mine, FREE, later(-30))
        if number % 5:
            store.usage.settle(call_of(mine))

    run_together([lambda number=number: call(number) for number in range(40)])
    store.usage.reserve(reservation(99, session_id=ids.SessionId("ses_0")), FREE, NOW)
    assert spent(store)["day"] == (32 * 4 + 10, 32 * 40 + 100)


def test_concurrent_processes_never_pass_a_budget(store: SqlStore, store_url: str) -> None:
    program = (
        "import sys\n"
        "from orchestrator.adapters import sql_store\n"
        "from orchestrator.domain import errors\n"
        "from tests.contract.store.test_usage import Budgets, NOW, Spend, reservation\n"
        "store = sql_store.open_store(sys.argv[1])\n"
        "admitted = 0\n"
        "for number in range(20):\n"
        "    call = reservation(sys.argv[2] + str(number))\n"
        "    try:\n"
        "        store.usage.reserve(call, Budgets(day=Spend(tokens=300)), NOW)\n"
        "        admitted += 1\n"
        "    except errors.LimitReached:\n"
        "        pass\n"
        "print(admitted)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, store_url, name],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    counts = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert sum(counts) == 30
    assert spent(store)["day"] == (300, 3000)


def test_the_reservation_of_a_dead_process_is_released(store: SqlStore) -> None:
    store.usage.reserve(reservation(1, holder="dead"), TEN, NOW)
    with pytest.raises(errors.LimitReached):
        store.usage.reserve(reservation(2), TEN, later(59))
    store.usage.reserve(reservation(2), TEN, later(60))
    (usage,) = store.usage.session_sums(SESSION)
    assert (usage.key, usage.calls) == ("", 1)


def test_a_call_may_be_too_large_when_the_reservation_of_a_dead_process_is_released(
    store: SqlStore,
) -> None:
    store.usage.reserve(reservation(1, holder="dead"), TEN, NOW)
    with pytest.raises(errors.BudgetExhausted):
        store.usage.reserve(reservation(2, worst=Spend(tokens=11)), TEN, later(60))
    (usage,) = store.usage.session_sums(SESSION)
    assert (usage.key, usage.calls) == ("", 1)
    store.usage.reserve(reservation(3), TEN, later(60))


def test_a_live_process_renews_its_reservations(store: SqlStore) -> None:
    store.usage.reserve(reservation(1, holder="alive"), TEN, NOW)
    store.usage.renew("somebody else", later(500))
    store.usage.renew("alive", later(100))
    store.usage.renew("alive", later(90))
    with pytest.raises(errors.LimitReached):
        store.usage.reserve(reservation(2), TEN, later(99))
    store.usage.reserve(reservation(3), TEN, later(100))


def test_a_call_recorded_as_lost_is_accounted_when_it_ends_after_all(
    store: SqlStore,
) -> None:
    store.usage.reserve(reservation(1), FREE, NOW)
    store.usage.reserve(reservation(2), FREE, later(60))
    store.usage.settle(call_of(reservation(1)))
    assert spent(store)["session"] == (4 + 10, 40 + 100)
    (usage,) = store.usage.session_sums(SESSION)
    assert (usage.key, usage.micro_usd) == ("anthropic", 40)


def keys(sums: Sequence[UsageSum]) -> list[tuple[str, int, int]]:
    return [(usage.key, usage.calls, usage.micro_usd) for usage in sums]


def test_usage_is_summed_by_user_day_model_session_and_provider(store: SqlStore) -> None:
    other = ids.UserId("usr_" + "b" * 26)
    calls = [
        call_of(reservation(1), micro_usd=10),
        call_of(reservation(2), micro_usd=20, model="claude-y", provider="fallback"),
        call_of(reservation(3, user_id=other, session_id=ids.SessionId("ses_2")), micro_usd=50),
        call_of(reservation(4, day=date(2026, 2, 28)), micro_usd=5, at=later(-86400)),
    ]
    for call in calls:
        store.usage.settle(call)
    long_ago = later(-(10**6))
    assert keys(store.usage.sums(GroupBy.USER, since=long_ago)) == [(other, 1, 50), (USER, 3, 35)]
    assert keys(store.usage.sums(GroupBy.DAY, since=long_ago)) == [
        ("2026-03-01", 3, 80),
        ("2026-02-28", 1, 5),
    ]
    assert keys(store.usage.sums(GroupBy.MODEL, since=NOW)) == [
        ("claude-x", 2, 60),
        ("claude-y", 1, 20),
    ]
    assert keys(store.usage.sums(GroupBy.SESSION, since=NOW, user_id=USER)) == [(SESSION, 2, 30)]
    assert len(store.usage.sums(GroupBy.USER, since=long_ago, limit=1)) == 1
    assert keys(store.usage.session_sums(SESSION)) == [("fallback", 1, 20), ("anthropic", 2, 15)]
    (first, _) = store.usage.sums(GroupBy.MODEL, since=long_ago)
    assert first.counts == TokenCounts(input=3, output=6, cache_read=3)
    assert first.last_at == later(5)


def test_old_usage_is_pruned_and_young_usage_stays(store: SqlStore) -> None:
    store.usage.settle(call_of(reservation(1), at=later(-100)))
    store.usage.settle(call_of(reservation(2, session_id=ids.SessionId("ses_2")), at=later(100)))
    assert store.usage.prune(NOW) == 1
    assert store.usage.session_sums(SESSION) == []
    assert len(store.usage.session_sums(ids.SessionId("ses_2"))) == 1
    assert set(spent(store)) == {"user", "day"}


def test_old_usage_is_pruned_in_several_transactions(store: SqlStore) -> None:
    count = sql_usage._PRUNE_BATCH + 1
    row = sql_usage._call_values(call_of(reservation(), at=later(-100)))
    engine = store._database._engine
    with store._database.write() as connection:
        rows = [{**row, "call_id": f"call_{number}"} for number in range(count)]
        connection.execute(sa.insert(schema.usage), rows)
    deleted_in: list[int] = []

    def note(_conn: Any, cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("DELETE FROM usage"):
            deleted_in.append(cursor.rowcount)

    sa.event.listen(engine, "after_cursor_execute", note)
    assert store.usage.prune(NOW) == count
    assert deleted_in == [sql_usage._PRUNE_BATCH, 1]


def call(store: SqlStore, number: int, **changes: Any) -> None:
    reserved = reservation(number)
    store.usage.reserve(reserved, FREE, NOW)
    store.usage.settle(call_of(reserved, **changes))


def test_the_providers_of_a_version_are_listed_in_order(store: SqlStore) -> None:
    call(store, 1, provider="fallback", change=1, at=later(3))
    call(store, 2, provider="anthropic", change=1, at=later(1))
    call(store, 3, provider="anthropic", change=1, at=later(2))
    call(store, 4, provider="third", change=1, outcome=Outcome.CUT)
    call(store, 5, provider="first", change=0)
    assert store.usage.providers(SESSION, 1) == ["anthropic", "fallback"]
    assert store.usage.providers(SESSION, 0) == ["first"]
    assert store.usage.providers(SESSION, 2) == []


def test_output_tokens_are_summed_by_version(store: SqlStore) -> None:
    other = ids.new_session_id()
    call(store, 1, counts=TokenCounts(output=100), at=later(1))
    call(store, 2, counts=TokenCounts(output=50), at=later(2))
    call(store, 3, counts=TokenCounts(output=7), change=1, at=later(3))
    call(store, 4, counts=TokenCounts(output=8), change=2, at=later(4))
    call(store, 5, counts=TokenCounts(output=30), session_id=other, at=later(5))
    call(store, 6, counts=TokenCounts(output=9), outcome=Outcome.FAILED)
    output_tokens = store.usage.output_tokens
    assert output_tokens(changes=False, since=NOW, limit=9) == [30, 150]
    assert output_tokens(changes=True, since=NOW, limit=9) == [8, 7]
    assert output_tokens(changes=False, since=NOW, limit=1) == [30]
    assert output_tokens(changes=False, since=later(5), limit=9) == [30]


def test_a_lost_call_is_recorded_with_its_change(store: SqlStore) -> None:
    store.usage.reserve(reservation(1, change=3), FREE, NOW)
    store.usage.reserve(reservation(2), FREE, later(61))  # releases expired reservations
    with store._database.read() as connection:
        rows = connection.execute(sa.select(schema.usage.c.call_id, schema.usage.c.change)).all()
    assert rows == [("call_1", 3)]
