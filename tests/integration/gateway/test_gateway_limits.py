"""The gateway under load: budgets, reservations, waiting for a slot, shared answers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from orchestrator.domain import ids
from orchestrator.domain.llm import pricing, requests
from orchestrator.domain.llm.budgets import Budgets, Spend
from orchestrator.domain.llm.usage import GroupBy, Reservation
from orchestrator.domain.sessions.session import Session
from tests.fakes.llm.providers import INPUT_TOKENS, OUTPUT_TOKENS, ProviderFake
from tests.integration.gateway.world import BODY, GatewayWorld, wait_until

ROOT = Path(__file__).parents[3]


def reservation_for_one_call(world: GatewayWorld, session: Session) -> Spend:
    """Make a call, and return the amount that the gateway reserved for it."""
    key = f"session:{session.id}"
    world.ask(session)
    assert world.deps.store.usage.spent([key])[key].tokens == INPUT_TOKENS + OUTPUT_TOKENS
    request = requests.parse(httpx2.Request("POST", "http://home", json=BODY).content)
    cost = pricing.worst_case(request, world.deps.policy.prices.tariff_for(request.model))
    return Spend(tokens=request.input_bound + request.max_tokens, micro_usd=cost)


def start_together(
    count: int, call: Callable[[int], httpx2.Response]
) -> tuple[ThreadPoolExecutor, list[Future[httpx2.Response]]]:
    """Start `call` with each number below `count`, in as many threads."""
    pool = ThreadPoolExecutor(count)
    return pool, [pool.submit(call, number) for number in range(count)]


@pytest.mark.parametrize("kind", ["tokens", "micro_usd"])
def test_fifty_sessions_at_once_spend_what_thirty_may_and_not_a_token_more(
    served: Callable[..., GatewayWorld], provider: ProviderFake, kind: str
) -> None:
    unlimited = served()
    reserved = reservation_for_one_call(unlimited, unlimited.session())
    used = Spend(
        tokens=INPUT_TOKENS + OUTPUT_TOKENS, micro_usd=INPUT_TOKENS * 2 + OUTPUT_TOKENS * 10
    )
    amount = getattr(used, kind) + 30 * getattr(reserved, kind)
    world = served(Budgets(day=Spend(**{kind: amount})))
    before = len(provider.requests)
    provider.hold()
    sessions = [world.session() for _ in range(50)]
    pool, calls = start_together(50, lambda number: world.ask(sessions[number]))
    with pool:
        refused = [call.result() for call in _first_to_end(calls, 20)]
        provider.release()
        answers = [call.result() for call in calls]
    assert [answer.status_code for answer in refused] == [429] * 20
    assert sorted(answer.status_code for answer in answers) == [200] * 30 + [429] * 20
    assert len(provider.requests) - before == 30
    (total,) = world.deps.store.usage.sums(
        GroupBy.DAY, since=datetime.now(UTC) - timedelta(hours=1)
    )
    assert total.counts.total == 31 * used.tokens
    error = refused[0].json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "budget_reserved")
    assert refused[0].headers["retry-after"] == "5"
    assert world.metric("spawn_llm_budget_refusals_total", scope="installation") == 20
    assert world.ask(world.session()).status_code == 200  # what the thirty didn't use is free again


def _first_to_end(
    calls: list[Future[httpx2.Response]], count: int
) -> list[Future[httpx2.Response]]:
    """The first `count` calls that end, while the provider holds back the others."""
    ended: list[Future[httpx2.Response]] = []
    all_ended = threading.Event()

    def record_end(call: Future[httpx2.Response]) -> None:
        ended.append(call)
        if len(ended) == count:
            all_ended.set()

    for call in calls:
        call.add_done_callback(record_end)
    assert all_ended.wait(30), len(ended)
    return ended[:count]


def test_a_session_whose_budget_is_used_up_is_told_by_the_sdks_own_error(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served(Budgets(session=Spend(tokens=500)))
    with world.sdk(world.session()) as sdk, pytest.raises(anthropic.APIStatusError) as caught:
        sdk.messages.create(**BODY)
    assert (caught.value.status_code, caught.value.type) == (402, "billing_error")
    assert "it does not renew" in str(caught.value)
    assert provider.requests == []


def test_reservations_of_a_process_that_was_killed_run_out(
    served: Callable[..., GatewayWorld],
    provider: ProviderFake,
    tmp_path: Path,
    migrated_sqlite: Path,
) -> None:
    world = served()
    session = world.session()
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.integration.gateway.world import gateway_for, settings_for\n"
        "class Provider:\n"
        "    url = sys.argv[2]\n"
        "settings = settings_for(Path(sys.argv[1]), Provider)\n"
        "with gateway_for(settings, Path('unused')) as world:\n"
        "    session = world.deps.store.sessions.get(sys.argv[3])\n"
        "    world.ask(session)\n"
    )
    provider.hold()
    victim = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), provider.url, session.id], cwd=ROOT
    )
    try:
        provider.wait_for(requests=1)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait(30)
    usage, key = world.deps.store.usage, f"session:{session.id}"
    held = usage.spent([key])[key]
    assert held.tokens > INPUT_TOKENS + OUTPUT_TOKENS
    provider.release()
    later = datetime.now(UTC) + timedelta(seconds=61)
    next_reservation = _reservation(world, session, later)
    usage.reserve(next_reservation, Budgets(), later)  # also removes those that expired
    assert usage.spent([key])[key] == next_reservation.worst
    assert world.accounts(session) == [("", 1, 0, 0)]


def test_a_client_that_goes_away_while_its_spend_is_reserved_leaves_nothing_set_aside(
    served: Callable[..., GatewayWorld], provider: ProviderFake, tmp_path: Path
) -> None:
    world = served()
    session = world.session()
    writer = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")  # all other writers wait for this one

    async def ask_and_hang_up() -> None:
        transport = httpx2.AsyncHTTPTransport(uds=str(world.socket))
        async with httpx2.AsyncClient(transport=transport) as client:
            headers = {"x-api-key": world.token(session)}
            request = asyncio.create_task(
                client.post("http://home/v1/messages", json=BODY, headers=headers)
            )
            joined = functools.partial(world.metric, "spawn_llm_shared_total", hit="no")
            await asyncio.to_thread(wait_until, lambda: joined() == 1)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)

    asyncio.run(ask_and_hang_up())
    writer.execute("ROLLBACK")
    writer.close()
    ended = functools.partial(
        world.metric, "spawn_llm_calls_total", provider="none", outcome="cancelled"
    )
    wait_until(lambda: ended() == 1)
    key = f"session:{session.id}"
    assert world.accounts(session) == []
    wait_until(lambda: world.deps.store.usage.spent([key]) == {key: Spend()})
    assert provider.requests == []


def _reservation(world: GatewayWorld, session: Session, now: datetime) -> Any:
    return Reservation(
        call_id="call_later",
        session_id=session.id,
        user_id=session.user_id,
        model="m",
        worst=Spend(tokens=1, micro_usd=1),
        day=now.date(),
        holder="another",
        expires_at=now + timedelta(seconds=60),
    )


def test_no_more_calls_than_the_cap_are_made_at_once_and_the_rest_takes_turns(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served(provider_concurrency=2)
    busy, quiet = ids.new_user_id(), ids.new_user_id()
    provider.hold()
    with ThreadPoolExecutor(8) as pool:
        calls = []
        for number, name in enumerate(["busy"] * 6 + ["quiet"]):
            system = f"{name} {number}"  # all different: equal requests would share an answer
            session = world.session(busy if name == "busy" else quiet)
            calls.append(pool.submit(world.ask, session, system=system))
            wait_until(lambda n=number: _running_and_waiting(world) == n + 1)
        provider.wait_for(requests=2)
        assert world.metric("spawn_llm_queue_length") == 5
        provider.release()
        assert [call.result().status_code for call in calls] == [200] * 7
    order = [request.body["system"] for request in provider.requests]
    assert provider.max_running == 2
    # One user leaves the last slot to the others, no matter how many calls wait.
    assert "quiet 6" in order[:2]


def _running_and_waiting(world: GatewayWorld) -> float:
    return world.metric("spawn_llm_queue_length") + world.metric("spawn_llm_calls_under_way")


def test_a_wait_for_a_turn_has_an_end_and_sends_nothing(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served(provider_concurrency=1, provider_queue_s=0.2)
    session = world.session()
    provider.hold()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(world.ask, session)
        provider.wait_for(requests=1)
        late = world.ask(session, system="another one")
        provider.release()
        assert first.result().status_code == 200
    error = late.json()["error"]
    assert (late.status_code, error["type"], error["code"]) == (
        429,
        "rate_limit_error",
        "gateway_busy",
    )
    assert int(late.headers["retry-after"]) >= 1
    assert len(provider.requests) == 1
    assert sum(calls for _, calls, _, _ in world.accounts(session)) == 1
    assert world.metric("spawn_llm_calls_total", provider="none", outcome="failed") == 1


@pytest.mark.parametrize("streamed", [True, False])
def test_equal_requests_of_a_user_share_one_call_and_get_the_same_bytes(
    served: Callable[..., GatewayWorld], provider: ProviderFake, streamed: bool
) -> None:
    world = served()
    user = ids.new_user_id()
    session, other = world.session(user), world.session(user)
    provider.hold(after_events=3 if streamed else None)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(world.ask, session, stream=streamed)
        provider.wait_for(requests=1)
        others = [pool.submit(world.ask, other, stream=streamed) for _ in range(3)]
        wait_until(lambda: world.metric("spawn_llm_shared_total", hit="yes") == 3)
        provider.release()
        bodies = {call.result().content for call in [first, *others]}
    assert len(bodies) == 1
    assert len(provider.requests) == 1
    assert [calls for _, calls, _, _ in world.accounts(session)] == [1]
    assert world.accounts(other) == []
    assert world.metric("spawn_llm_shared_total", hit="no") == 1


def test_who_shares_an_answer_keeps_it_when_the_one_who_asked_first_goes_away(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served()
    user = ids.new_user_id()
    provider.hold()
    with ThreadPoolExecutor(2) as pool:
        first_client = world.http()
        first = pool.submit(world.ask, world.session(user), client=first_client)
        provider.wait_for(requests=1)
        second_call = pool.submit(world.ask, world.session(user))
        wait_until(lambda: world.metric("spawn_llm_shared_total", hit="yes") == 1)
        first_client.close()
        provider.release()
        assert second_call.result().status_code == 200
        with contextlib.suppress(httpx2.HTTPError, RuntimeError):
            first.result()
    assert (len(provider.requests), provider.cancelled) == (1, 0)


@pytest.mark.parametrize("switched_on", [False, True])
def test_users_share_nothing_unless_it_is_switched_on(
    served: Callable[..., GatewayWorld], provider: ProviderFake, switched_on: bool
) -> None:
    world = served(share_between_users=switched_on)
    provider.hold()
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(world.ask, world.session()) for _ in range(2)]
        if switched_on:
            wait_until(lambda: world.metric("spawn_llm_shared_total", hit="yes") == 1)
        else:
            provider.wait_for(requests=2)
        provider.release()
        assert [call.result().status_code for call in calls] == [200, 200]
    assert len(provider.requests) == 2 - switched_on


@pytest.mark.parametrize("value", [b"caf\xe9", b"a\tb"])
def test_a_header_that_no_provider_could_get_is_400_in_the_apis_own_shape(
    served: Callable[..., GatewayWorld], provider: ProviderFake, value: bytes
) -> None:
    world = served()
    headers = {b"x-api-key": world.token(world.session()).encode(), b"anthropic-beta": value}
    answer = world.http().post("/v1/messages", json=BODY, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert "anthropic-beta" in answer.json()["error"]["message"]
    assert provider.requests == []


def test_token_counts_have_a_rate_for_each_session(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served()
    session, client = world.session(), world.http()
    path = "/v1/messages/count_tokens"
    answers = [world.ask(session, path=path, client=client) for _ in range(80)]
    refused = next(answer for answer in answers if answer.status_code != 200)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "too_many_token_counts"
    assert int(refused.headers["retry-after"]) >= 1
    assert world.ask(world.session(), path=path).status_code == 200
    assert world.ask(session).status_code == 200


def test_a_session_whose_slot_time_is_used_up_is_told_so_and_others_are_served(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served(provider_session_s=120)
    session = world.session()
    provider.hold()
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(world.ask, session, system=f"number {number}") for number in range(2)]
        provider.wait_for(requests=2)
        refused = world.ask(session, system="another one")
        provider.release()
        assert [call.result().status_code for call in calls] == [200, 200]
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (429, "slot_time_exhausted")
    assert "SPAWN_PROVIDER_SESSION_S" in error["message"]
    assert int(refused.headers["retry-after"]) >= 1
    assert len(provider.requests) == 2
    assert world.ask(world.session()).status_code == 200


def test_a_call_without_slot_time_is_refused_before_anything_is_written_about_it(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served(provider_user_s=60)
    user = ids.new_user_id()
    session, other = world.session(user), world.session(user)
    provider.hold()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(world.ask, session)
        provider.wait_for(requests=1)
        refused = world.ask(other, system="another one")
        provider.release()
        assert call.result().status_code == 200
    assert refused.json()["error"]["code"] == "slot_time_exhausted"
    assert world.deps.store.usage.spent([f"session:{other.id}"]) == {}
    assert world.accounts(other) == []
    assert world.metric("spawn_llm_slot_refusals_total", limit="user") == 1


def test_a_session_makes_few_calls_at_a_time(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served()
    session = world.session()
    provider.hold()
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(world.ask, session, system=f"number {number}") for number in range(4)]
        provider.wait_for(requests=4)
        refused = world.ask(session, system="another one")
        provider.release()
        assert [call.result().status_code for call in calls] == [200] * 4
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_calls")
    assert world.ask(session).status_code == 200
