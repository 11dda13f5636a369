"""The endpoints for usage, the check for refused keys, and the gateway's metrics."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
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
from orchestrator.entrypoints.api.agents import status_app
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.serving import make_server
from orchestrator.services.deps import Deps
from orchestrator.services.people import keys
from tests.fakes.hub import deaf_hub
from tests.integration.serving import serving

BUDGETS = Budgets(user_day=Spend(micro_usd=5_000_000))


@pytest.fixture
def context(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Context]:
    shutil.copy(migrated_sqlite, tmp_path / "spawn.db")
    settings = config.make(state_dir=tmp_path, anthropic_api_key="sk-x")
    deps = bootstrap.build(settings, bootstrap.NoEngines())
    context = Context(
        settings=settings,
        deps=replace(deps, policy=replace(deps.policy, budgets=BUDGETS)),
        hub=deaf_hub(),
        started_at=datetime.now(UTC),
        answers_kept_s=0.0,
    )
    socket = settings.places.gateway_socket
    socket.parent.mkdir()
    with serving(lambda: make_server(status_app.build(context), uds=str(socket))):
        yield context
    deps.store.close()


@pytest.fixture
def api(context: Context) -> TestClient:
    return TestClient(public_app.build(context), base_url="http://localhost")


def new_user(deps: Deps, role: Role) -> tuple[dict[str, str], ids.UserId]:
    """Create a key; return the headers that use it, and the id of its user."""
    new_key = keys.create(deps, f"a {role}", Tier.PRO, role)
    return {"authorization": f"Bearer {new_key.secret}"}, new_key.key.user_id


def spend(deps: Deps, user_id: ids.UserId) -> Call:
    """Account for one call of a new session."""
    now = datetime.now(UTC)
    session_id = ids.new_session_id()
    reservation = Reservation(
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
        call_id=reservation.call_id,
        session_id=session_id,
        user_id=user_id,
        model="claude-x",
        provider="anthropic",
        counts=TokenCounts(input=10, output=20, cache_write_5m=1, cache_write_1h=2, cache_read=3),
        micro_usd=1_250_000,
        duration_ms=900,
        at=now,
        day=now.date(),
        outcome=Outcome.SERVED,
    )
    deps.store.usage.reserve(reservation, BUDGETS, now)
    deps.store.usage.settle(call)
    return call


def test_a_user_sees_its_own_usage_and_what_is_left_today(
    context: Context, api: TestClient
) -> None:
    headers, user_id = new_user(context.deps, Role.USER)
    call = spend(context.deps, user_id)
    spend(context.deps, ids.new_user_id())
    usage = api.get("/api/usage", headers=headers).json()
    (day,) = usage["by_day"]
    assert (day["key"], day["calls"], day["cost_usd"]) == (call.day.isoformat(), 1, 1.25)
    assert (day["input_tokens"], day["cache_write_tokens"]) == (10, 3)
    assert [row["key"] for row in usage["by_session"]] == [call.session_id]
    assert (usage["budget"]["limit_usd"], usage["budget"]["left_usd"]) == (5.0, 3.75)
    assert usage["budget"]["limit_tokens"] is None
    assert usage["budget"]["renews_at"] > datetime.now(UTC).isoformat()


def test_a_user_without_usage_gets_an_empty_answer(api: TestClient) -> None:
    usage = api.get("/api/usage").json()
    assert (usage["by_day"], usage["budget"]["left_usd"]) == ([], 5.0)


@pytest.mark.parametrize("by", ["user", "day", "model", "session", "provider"])
def test_an_operator_sees_everybodys_usage_by_whatever_is_asked(
    context: Context, api: TestClient, by: str
) -> None:
    headers, _ = new_user(context.deps, Role.OPERATOR)
    calls = [spend(context.deps, ids.new_user_id()) for _ in range(2)]
    usage = api.get(f"/api/admin/usage?by={by}", headers=headers).json()
    expected = {
        "user": {call.user_id for call in calls},
        "day": {call.day.isoformat() for call in calls},
        "model": {"claude-x"},
        "session": {call.session_id for call in calls},
        "provider": {"anthropic"},
    }[by]
    assert {row["key"] for row in usage["rows"]} == expected
    assert (usage["total"]["calls"], usage["total"]["cost_usd"]) == (2, 2.5)
    assert usage["prices_of"]


def test_nobody_else_sees_it(context: Context, api: TestClient) -> None:
    headers, _ = new_user(context.deps, Role.USER)
    assert api.get("/api/admin/usage", headers=headers).status_code == 403
    assert api.get("/api/admin/usage").status_code == 401
    headers, _ = new_user(context.deps, Role.OPERATOR)
    assert api.get("/api/admin/usage?by=colour", headers=headers).status_code == 422
    assert api.get("/api/admin/usage?days=0", headers=headers).status_code == 422


def test_a_key_that_was_refused_is_named_by_ready(context: Context, api: TestClient) -> None:
    assert api.get("/ready").json()["checks"]["claude"]["ok"] is True
    context.metrics.record_refused_key(
        "ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY was refused (401): no"
    )
    check = api.get("/ready").json()["checks"]["claude"]
    assert (check["ok"], check["settings"]) == (False, ["ANTHROPIC_API_KEY"])
    assert "was refused (401)" in check["detail"]
    context.metrics.record_accepted_key("ANTHROPIC_API_KEY")
    assert api.get("/ready").json()["checks"]["claude"]["ok"] is True


def test_the_gateways_counts_are_among_the_metrics(context: Context, api: TestClient) -> None:
    context.metrics.count_call(spend(context.deps, ids.new_user_id()))
    context.metrics.set_breaker_state("anthropic", BreakerState.OPEN)
    text = api.get("/metrics").text
    for line in (
        'spawn_llm_calls_total{outcome="served",provider="anthropic"} 1.0',
        'spawn_llm_tokens_total{kind="output",provider="anthropic"} 20.0',
        'spawn_llm_cost_usd_total{provider="anthropic"} 1.25',
        'spawn_llm_breaker{provider="anthropic",state="open"} 1.0',
        'spawn_llm_breaker{provider="anthropic",state="closed"} 0.0',
        "spawn_llm_queue_length 0.0",
        "spawn_warm_target 3.0",
    ):
        assert line in text
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families)), "no family may be written twice"
    assert "spawn_generation_cache_total" in families or "spawn_generation_cache" in families
