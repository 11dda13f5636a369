"""What the API says of usage, of keys that are refused, and in its metrics."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis.asyncio
from starlette.testclient import TestClient

from orchestrator import bootstrap, config
from orchestrator.domain import ids
from orchestrator.domain.llm.breakers import BreakerState
from orchestrator.domain.llm.budgets import Budgets, Spend
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.domain.llm.usage import Call, Outcome, Reservation
from orchestrator.domain.people.access import Role
from orchestrator.domain.sessions.session import Tier
from orchestrator.entrypoints.api import public_app
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.hub import Hub
from orchestrator.services.deps import Deps
from orchestrator.services.people import keys

BUDGETS = Budgets(user_day=Spend(micro_usd=5_000_000))


@pytest.fixture
def context(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Context]:
    shutil.copy(migrated_sqlite, tmp_path / "spawn.db")
    settings = config.make(state_dir=tmp_path, anthropic_api_key="sk-x")
    deps = bootstrap.build(settings, bootstrap.NoEngines())
    yield Context(
        settings=settings,
        deps=replace(deps, policy=replace(deps.policy, budgets=BUDGETS)),
        hub=Hub(redis.asyncio.Redis()),
        started_at=datetime.now(UTC),
    )
    deps.store.close()


@pytest.fixture
def api(context: Context) -> TestClient:
    return TestClient(public_app.build(context))


def bearer(deps: Deps, role: Role) -> tuple[dict[str, str], ids.UserId]:
    made = keys.create(deps, f"a {role}", Tier.PRO, role)
    return {"authorization": f"Bearer {made.secret}"}, made.key.user_id


def spend(deps: Deps, user_id: ids.UserId, *, provider: str = "anthropic") -> Call:
    now = datetime.now(UTC)
    session_id = ids.new_session_id()
    wanted = Reservation(
        call_id=f"call_{session_id}",
        session_id=session_id,
        user_id=user_id,
        model="claude-x",
        worst=Spend(tokens=99, micro_usd=99),
        day=now.date(),
        holder="test",
        expires_at=now + timedelta(seconds=60),
    )
    call = Call(
        call_id=wanted.call_id,
        session_id=session_id,
        user_id=user_id,
        model="claude-x",
        provider=provider,
        counts=TokenCounts(input=10, output=20, cache_write_5m=1, cache_write_1h=2, cache_read=3),
        micro_usd=1_250_000,
        duration_ms=900,
        at=now,
        day=now.date(),
        outcome=Outcome.SERVED,
    )
    deps.store.usage.reserve(wanted, BUDGETS, now)
    deps.store.usage.settle(call)
    return call


def test_a_user_sees_its_own_usage_and_what_is_left_today(
    context: Context, api: TestClient
) -> None:
    headers, user_id = bearer(context.deps, Role.USER)
    mine = spend(context.deps, user_id)
    spend(context.deps, ids.new_user_id())
    said = api.get("/api/usage", headers=headers).json()
    (day,) = said["by_day"]
    assert (day["key"], day["calls"], day["cost_usd"]) == (mine.day.isoformat(), 1, 1.25)
    assert (day["input_tokens"], day["cache_write_tokens"]) == (10, 3)
    assert [row["key"] for row in said["by_session"]] == [mine.session_id]
    assert (said["budget"]["limit_usd"], said["budget"]["left_usd"]) == (5.0, 3.75)
    assert said["budget"]["limit_tokens"] is None
    assert said["budget"]["renews_at"] > datetime.now(UTC).isoformat()


def test_who_has_used_nothing_gets_an_empty_answer(api: TestClient) -> None:
    said = api.get("/api/usage").json()
    assert (said["by_day"], said["budget"]["left_usd"]) == ([], 5.0)


@pytest.mark.parametrize("by", ["user", "day", "model", "session", "provider"])
def test_an_operator_sees_everybodys_usage_by_whatever_is_asked(
    context: Context, api: TestClient, by: str
) -> None:
    headers, _ = bearer(context.deps, Role.OPERATOR)
    calls = [spend(context.deps, ids.new_user_id()) for _ in range(2)]
    said = api.get(f"/api/admin/usage?by={by}", headers=headers).json()
    expected = {
        "user": {call.user_id for call in calls},
        "day": {call.day.isoformat() for call in calls},
        "model": {"claude-x"},
        "session": {call.session_id for call in calls},
        "provider": {"anthropic"},
    }[by]
    assert {row["key"] for row in said["rows"]} == expected
    assert (said["total"]["calls"], said["total"]["cost_usd"]) == (2, 2.5)
    assert said["prices_of"]


def test_nobody_else_sees_it(context: Context, api: TestClient) -> None:
    headers, _ = bearer(context.deps, Role.USER)
    assert api.get("/api/admin/usage", headers=headers).status_code == 403
    assert api.get("/api/admin/usage").status_code == 401
    headers, _ = bearer(context.deps, Role.OPERATOR)
    assert api.get("/api/admin/usage?by=colour", headers=headers).status_code == 422
    assert api.get("/api/admin/usage?days=0", headers=headers).status_code == 422


def test_a_key_that_was_refused_is_named_by_ready(context: Context, api: TestClient) -> None:
    assert api.get("/ready").json()["checks"]["claude"]["ok"] is True
    context.board.key_refused("ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY was refused (401): no")
    said = api.get("/ready").json()["checks"]["claude"]
    assert (said["ok"], said["settings"]) == (False, ["ANTHROPIC_API_KEY"])
    assert "was refused (401)" in said["detail"]
    context.board.key_accepted("ANTHROPIC_API_KEY")
    assert api.get("/ready").json()["checks"]["claude"]["ok"] is True


def test_the_gateways_counts_are_among_the_metrics(context: Context, api: TestClient) -> None:
    context.board.accounted(spend(context.deps, ids.new_user_id()))
    context.board.breaker("anthropic", BreakerState.OPEN)
    text = api.get("/metrics").text
    for line in (
        'spawn_llm_calls_total{outcome="served",provider="anthropic"} 1.0',
        'spawn_llm_tokens_total{kind="output",provider="anthropic"} 20.0',
        'spawn_llm_cost_usd_total{provider="anthropic"} 1.25',
        'spawn_llm_breaker{provider="anthropic",state="open"} 1.0',
        'spawn_llm_breaker{provider="anthropic",state="closed"} 0.0',
        "spawn_llm_queue_length 0.0",
    ):
        assert line in text
