"""The gateway under load and in trouble: budgets, turns, retries, the chain, shared answers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
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
from orchestrator.domain.llm.usage import By, Reservation
from orchestrator.domain.sessions.session import Session
from tests.fakes.llm.providers import INPUT_TOKENS, OUTPUT_TOKENS, ProviderFake, Scripted
from tests.integration.gateway.world import (
    BODY,
    KEY,
    GatewayWorld,
    events_of,
    gateway_for,
    settings_for,
)

ROOT = Path(__file__).parents[3]
BROKEN = Scripted(status=529)
REFUSED = Scripted(status=401, error="authentication_error")


@pytest.fixture
def provider() -> Iterator[ProviderFake]:
    with ProviderFake() as server:
        yield server


@pytest.fixture
def second() -> Iterator[ProviderFake]:
    with ProviderFake() as server:
        yield server


@pytest.fixture
def served(
    provider: ProviderFake, tmp_path: Path, migrated_sqlite: Path
) -> Iterator[Callable[..., GatewayWorld]]:
    """Starts gateways in front of `provider`."""
    with contextlib.ExitStack() as stack:

        def serve(budgets: Budgets | None = None, **changes: Any) -> GatewayWorld:
            settings = settings_for(tmp_path, provider, **changes)
            return stack.enter_context(gateway_for(settings, migrated_sqlite, budgets))

        yield serve


def worst_of(world: GatewayWorld, session: Session, **changes: Any) -> Spend:
    """What is set aside for one request: found out by making it."""
    key = f"session:{session.id}"
    world.ask(session, **changes)
    assert world.deps.store.usage.spent([key])[key].tokens == INPUT_TOKENS + OUTPUT_TOKENS
    request = httpx2.Request("POST", "http://home", json={**BODY, **changes})
    ask = requests.read(request.content)
    cost = pricing.worst_case(ask, world.deps.policy.prices.of(ask.model))
    return Spend(tokens=ask.input_bound + ask.max_tokens, micro_usd=cost)


def together(
    count: int, call: Callable[[int], httpx2.Response]
) -> tuple[ThreadPoolExecutor, list[Future[httpx2.Response]]]:
    pool = ThreadPoolExecutor(count)
    return pool, [pool.submit(call, number) for number in range(count)]


@pytest.mark.parametrize("kind", ["tokens", "micro_usd"])
def test_fifty_sessions_at_once_spend_what_thirty_may_and_not_a_token_more(
    served: Callable[..., GatewayWorld], provider: ProviderFake, kind: str
) -> None:
    probe = served()
    worst = worst_of(probe, probe.session())
    used = Spend(
        tokens=INPUT_TOKENS + OUTPUT_TOKENS, micro_usd=INPUT_TOKENS * 2 + OUTPUT_TOKENS * 10
    )
    amount = getattr(used, kind) + 30 * getattr(worst, kind)
    world = served(Budgets(day=Spend(**{kind: amount})))
    before = len(provider.seen)
    provider.hold()
    sessions = [world.session() for _ in range(50)]
    pool, calls = together(50, lambda number: world.ask(sessions[number]))
    with pool:
        refused = [call.result() for call in _first_done(calls, 20)]
        provider.release()
        answers = [call.result() for call in calls]
    assert [one.status_code for one in refused] == [402] * 20
    assert sorted(one.status_code for one in answers) == [200] * 30 + [402] * 20
    assert len(provider.seen) - before == 30
    (total,) = world.deps.store.usage.sums(By.DAY, since=datetime.now(UTC) - timedelta(hours=1))
    assert total.counts.total == 31 * used.tokens
    said = refused[0].json()["error"]
    assert (said["type"], said["code"]) == ("billing_error", "budget_exhausted")
    assert "renews at" in said["message"]
    assert world.metric("spawn_llm_budget_refusals_total", scope="installation") == 20


def _first_done(calls: list[Future[httpx2.Response]], count: int) -> list[Future[httpx2.Response]]:
    """The first so many to end, while the provider holds back the rest."""
    done: list[Future[httpx2.Response]] = []
    enough = threading.Event()

    def note(call: Future[httpx2.Response]) -> None:
        done.append(call)
        if len(done) == count:
            enough.set()

    for call in calls:
        call.add_done_callback(note)
    assert enough.wait(30), len(done)
    return done[:count]


def test_a_session_whose_budget_is_used_up_is_told_by_the_sdks_own_error(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served(Budgets(session=Spend(tokens=500)))
    with world.sdk(world.session()) as sdk, pytest.raises(anthropic.APIStatusError) as caught:
        sdk.messages.create(**BODY)
    assert (caught.value.status_code, caught.value.type) == (402, "billing_error")
    assert "it does not renew" in str(caught.value)
    assert provider.seen == []


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
        "class Elsewhere:\n"
        "    url = sys.argv[2]\n"
        "settings = settings_for(Path(sys.argv[1]), Elsewhere)\n"
        "with gateway_for(settings, Path('unused')) as world:\n"
        "    session = world.deps.store.sessions.get(sys.argv[3])\n"
        "    world.ask(session)\n"
    )
    provider.hold()
    victim = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), provider.url, session.id], cwd=ROOT
    )
    try:
        provider.wait_for(seen=1)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait(30)
    usage, key = world.deps.store.usage, f"session:{session.id}"
    held = usage.spent([key])[key]
    assert held.tokens > INPUT_TOKENS + OUTPUT_TOKENS
    provider.release()
    later = datetime.now(UTC) + timedelta(seconds=61)
    trigger = _reservation(world, session, later)
    usage.reserve(trigger, Budgets(), later)
    assert usage.spent([key])[key] == trigger.worst
    assert world.accounts(session) == [("", 1, 0, 0)]


def test_a_client_that_goes_away_while_its_spend_is_reserved_leaves_nothing_set_aside(
    served: Callable[..., GatewayWorld], provider: ProviderFake, tmp_path: Path
) -> None:
    world = served()
    session = world.session()
    writer = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")  # whoever wants to write waits for us

    async def ask_and_hang_up() -> None:
        transport = httpx2.AsyncHTTPTransport(uds=str(world.socket))
        async with httpx2.AsyncClient(transport=transport) as client:
            headers = {"x-api-key": world.token(session)}
            asking = asyncio.create_task(
                client.post("http://home/v1/messages", json=BODY, headers=headers)
            )
            asked = functools.partial(world.metric, "spawn_llm_shared_total", hit="no")
            await asyncio.to_thread(until, lambda: asked() == 1)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    asyncio.run(ask_and_hang_up())
    writer.execute("ROLLBACK")
    writer.close()
    until(lambda: world.accounts(session) == [("", 1, 0, 0)])
    key = f"session:{session.id}"
    assert world.deps.store.usage.spent([key]) == {key: Spend()}
    assert provider.seen == []


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
    sessions = {name: world.session(user) for name, user in (("busy", busy), ("quiet", quiet))}
    with ThreadPoolExecutor(8) as pool:
        calls = []
        for number, name in enumerate(["busy"] * 6 + ["quiet"]):
            system = f"{name} {number}"  # no two alike: they would share an answer
            calls.append(pool.submit(world.ask, sessions[name], system=system))
            until(lambda n=number: _in_hand(world) == n + 1)
        provider.wait_for(seen=2)
        assert world.metric("spawn_llm_queue_length") == 5
        provider.release()
        assert [call.result().status_code for call in calls] == [200] * 7
    order = [one.body["system"] for one in provider.seen]
    assert provider.most_at_once == 2
    # Behind the two that were made at once: one of each user, whoever had more waiting.
    assert "quiet 6" in order[2:4]


def _in_hand(world: GatewayWorld) -> float:
    return world.metric("spawn_llm_queue_length") + world.metric("spawn_llm_calls_under_way")


def until(what: Callable[[], bool]) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=20)
    waiting = threading.Event()
    while not what():
        assert datetime.now(UTC) < ends, "this never came true"
        waiting.wait(0.005)


def test_a_wait_for_a_turn_has_an_end_and_sends_nothing(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served(provider_concurrency=1, provider_queue_s=0.2)
    session = world.session()
    provider.hold()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(world.ask, session)
        provider.wait_for(seen=1)
        late = world.ask(session, system="another one")
        provider.release()
        assert first.result().status_code == 200
    said = late.json()["error"]
    assert (late.status_code, said["type"], said["code"]) == (
        429,
        "rate_limit_error",
        "gateway_busy",
    )
    assert int(late.headers["retry-after"]) >= 1
    assert len(provider.seen) == 1
    assert sum(calls for _, calls, _, _ in world.accounts(session)) == 2


@pytest.mark.parametrize(
    "trouble",
    [
        Scripted(status=429, error="rate_limit_error", headers={"retry-after": "0"}),
        Scripted(status=529),
        Scripted(status=500, error="api_error"),
        Scripted(drop=True),
        Scripted(cut_after=0),
        Scripted(
            events=({"type": "error", "error": {"type": "overloaded_error", "message": "m"}},)
        ),
    ],
)
def test_trouble_before_the_first_byte_is_overcome(
    served: Callable[..., GatewayWorld], provider: ProviderFake, trouble: Scripted
) -> None:
    world = served()
    session = world.session()
    provider.play(trouble, trouble)
    answer = world.ask(session, stream=True)
    assert answer.status_code == 200
    assert events_of(answer.content)[-1]["type"] == "message_stop"
    assert len(provider.seen) == 3
    assert [calls for _, calls, _, _ in world.accounts(session)] == [1]


def test_trouble_that_lasts_is_passed_on_with_the_retries_done(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served()
    provider.always(BROKEN)
    session = world.session()
    answer = world.ask(session)
    assert answer.status_code == 529
    assert answer.json()["error"]["message"] == "scripted 529"
    assert answer.headers["x-should-retry"] == "false"
    assert len(provider.seen) == 4
    assert world.accounts(session) == [("anthropic", 1, 0, 0)]
    spent = world.deps.store.usage.spent([f"session:{session.id}"])
    assert list(spent.values()) == [Spend()]


def test_a_provider_that_forbids_retries_is_asked_once(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served()
    provider.always(Scripted(status=500, headers={"x-should-retry": "false"}))
    assert world.ask(world.session()).status_code == 500
    assert len(provider.seen) == 1


def test_a_key_that_is_refused_is_named_and_remembered_until_it_works(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served()
    session = world.session()
    provider.play(REFUSED)
    answer = world.ask(session)
    said = answer.json()["error"]
    assert (answer.status_code, said["type"], said["code"]) == (
        401,
        "authentication_error",
        "provider_auth",
    )
    assert "ANTHROPIC_API_KEY" in said["message"]
    assert KEY not in answer.text
    assert list(world.context.board.faults) == ["ANTHROPIC_API_KEY"]
    assert world.ask(session).status_code == 200
    assert world.context.board.faults == {}


@pytest.mark.parametrize("trouble", [BROKEN, REFUSED, Scripted(drop=True)])
def test_the_next_provider_serves_when_the_first_does_not(
    served: Callable[..., GatewayWorld],
    provider: ProviderFake,
    second: ProviderFake,
    trouble: Scripted,
) -> None:
    world = served(fallback_api_key="sk-second", fallback_base_url=second.url, provider_retry_s=0.2)
    session = world.session()
    provider.always(trouble)
    with world.sdk(session) as sdk, sdk.messages.stream(**BODY) as stream:
        assert stream.get_final_message().stop_reason == "end_turn"
    assert [one.headers["x-api-key"] for one in second.seen] == ["sk-second"]
    assert [name for name, *_ in world.accounts(session)] == ["fallback"]


def test_the_last_resort_is_an_openai_compatible_endpoint(
    served: Callable[..., GatewayWorld], provider: ProviderFake, second: ProviderFake
) -> None:
    world = served(
        openai_base_url=f"{second.url}/v1", openai_model="gpt-x", openai_api_key="sk-openai"
    )
    session = world.session()
    provider.always(REFUSED)
    message = world.ask(session).json()
    assert (message["type"], message["model"]) == ("message", "gpt-x")
    (seen,) = second.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == "Bearer sk-openai"
    assert seen.body["max_completion_tokens"] == BODY["max_tokens"]
    ((name, calls, tokens, micro),) = world.accounts(session)
    assert (name, calls, tokens) == ("openai", 1, INPUT_TOKENS + OUTPUT_TOKENS)
    assert micro == world.deps.policy.prices.dearest().cost(
        pricing.TokenCounts(input=INPUT_TOKENS, output=OUTPUT_TOKENS)
    )


def test_a_request_that_the_last_resort_cannot_understand_gets_the_first_ones_error(
    served: Callable[..., GatewayWorld], provider: ProviderFake, second: ProviderFake
) -> None:
    world = served(openai_base_url=f"{second.url}/v1", openai_model="gpt-x")
    provider.always(Scripted(status=529, headers={"x-should-retry": "false"}))
    tools = [{"type": "bash_20250124", "name": "bash"}]
    assert world.ask(world.session(), tools=tools).status_code == 529
    assert second.seen == []


def test_a_provider_that_keeps_failing_is_gone_around_and_tried_again_later(
    served: Callable[..., GatewayWorld], provider: ProviderFake, second: ProviderFake
) -> None:
    world = served(fallback_api_key="sk-second", fallback_base_url=second.url, provider_retry_s=0.2)
    session = world.session()
    provider.always(Scripted(drop=True))
    for _ in range(8):
        assert world.ask(session).status_code == 200
    asked = len(provider.seen)
    assert asked == 5  # after so many failures in a row its breaker opened
    assert world.metric("spawn_llm_breaker", provider="anthropic", state="open") == 1
    assert world.ask(session).status_code == 200
    assert len(provider.seen) == asked


@pytest.mark.parametrize("streamed", [True, False])
def test_equal_requests_of_a_user_share_one_call_and_get_the_same_bytes(
    served: Callable[..., GatewayWorld], provider: ProviderFake, streamed: bool
) -> None:
    world = served()
    user = ids.new_user_id()
    one, other = world.session(user), world.session(user)
    provider.hold(after_events=3 if streamed else None)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(world.ask, one, stream=streamed)
        provider.wait_for(seen=1)
        others = [pool.submit(world.ask, other, stream=streamed) for _ in range(3)]
        until(lambda: world.metric("spawn_llm_shared_total", hit="yes") == 3)
        provider.release()
        bodies = {call.result().content for call in [first, *others]}
    assert len(bodies) == 1
    assert len(provider.seen) == 1
    assert [calls for _, calls, _, _ in world.accounts(one)] == [1]
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
        provider.wait_for(seen=1)
        second_call = pool.submit(world.ask, world.session(user))
        until(lambda: world.metric("spawn_llm_shared_total", hit="yes") == 1)
        first_client.close()
        provider.release()
        assert second_call.result().status_code == 200
        with contextlib.suppress(httpx2.HTTPError, RuntimeError):
            first.result()
    assert (len(provider.seen), provider.cancelled) == (1, 0)


@pytest.mark.parametrize("switched_on", [False, True])
def test_users_share_nothing_unless_it_is_switched_on(
    served: Callable[..., GatewayWorld], provider: ProviderFake, switched_on: bool
) -> None:
    world = served(share_between_users=switched_on)
    provider.hold()
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(world.ask, world.session()) for _ in range(2)]
        if switched_on:
            until(lambda: world.metric("spawn_llm_shared_total", hit="yes") == 1)
        else:
            provider.wait_for(seen=2)
        provider.release()
        assert [call.result().status_code for call in calls] == [200, 200]
    assert len(provider.seen) == 2 - switched_on
