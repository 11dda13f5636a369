"""The gateway when providers are in trouble: retries, refused keys, the chain, breakers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.domain.llm import pricing
from orchestrator.domain.llm.budgets import Spend
from tests.fakes.llm.providers import INPUT_TOKENS, OUTPUT_TOKENS, ProviderFake, Scripted
from tests.integration.gateway.world import BODY, KEY, GatewayWorld, events_of, wait_until

BROKEN = Scripted(status=529)
REFUSED = Scripted(status=401, error="authentication_error")


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
    assert len(provider.requests) == 3
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
    assert len(provider.requests) == 4
    assert world.accounts(session) == []
    assert world.metric("spawn_llm_calls_total", provider="anthropic", outcome="failed") == 1
    key = f"session:{session.id}"
    wait_until(lambda: world.deps.store.usage.spent([key]) == {key: Spend()})


def test_a_provider_that_forbids_retries_is_asked_once(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served()
    provider.always(Scripted(status=500, headers={"x-should-retry": "false"}))
    assert world.ask(world.session()).status_code == 500
    assert len(provider.requests) == 1


def test_a_key_that_is_refused_is_named_and_remembered_until_it_works(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served()
    session = world.session()
    provider.play(REFUSED)
    answer = world.ask(session)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (
        401,
        "authentication_error",
        "provider_auth",
    )
    assert "ANTHROPIC_API_KEY" in error["message"]
    assert KEY not in answer.text
    assert list(world.context.metrics.refused_keys) == ["ANTHROPIC_API_KEY"]
    assert world.ask(session).status_code == 200
    assert world.context.metrics.refused_keys == {}


def test_an_account_without_credit_is_named_and_remembered_until_it_has_some(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served()
    session = world.session()
    provider.play(Scripted(status=402, error="billing_error"))
    answer = world.ask(session)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (
        402,
        "billing_error",
        "provider_no_credit",
    )
    assert "ANTHROPIC_API_KEY has no credit" in error["message"]
    (reason,) = world.context.metrics.refused_keys.values()
    assert "has no credit" in reason
    assert world.ask(session).status_code == 200
    assert world.context.metrics.refused_keys == {}


PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "http://[::1"])
def test_a_provider_of_our_own_network_is_reached_without_the_proxy(
    served: Callable[..., GatewayWorld],
    provider: ProviderFake,
    monkeypatch: pytest.MonkeyPatch,
    proxy: str,
) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, "" if name.lower() == "no_proxy" else proxy)
    world = served()
    assert world.ask(world.session()).status_code == 200


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_provider_is_reached_through_the_proxy_if_that_is_said(
    served: Callable[..., GatewayWorld],
    provider: ProviderFake,
    monkeypatch: pytest.MonkeyPatch,
    proxy: str,
) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, "" if name.lower() == "no_proxy" else proxy)
    world = served(provider_proxy_private=True, provider_retry_s=0.1)
    assert world.ask(world.session()).status_code == 502
    assert provider.requests == []


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
    assert [request.headers["x-api-key"] for request in second.requests] == ["sk-second"]
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
    (request,) = second.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-openai"
    assert request.body["max_completion_tokens"] == BODY["max_tokens"]
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
    assert second.requests == []


def test_a_provider_that_keeps_failing_is_gone_around_and_tried_again_later(
    served: Callable[..., GatewayWorld], provider: ProviderFake, second: ProviderFake
) -> None:
    world = served(fallback_api_key="sk-second", fallback_base_url=second.url, provider_retry_s=0.2)
    session = world.session()
    provider.always(Scripted(drop=True))
    for _ in range(8):
        assert world.ask(session).status_code == 200
    attempts = len(provider.requests)
    assert attempts == 5  # after so many failures in a row its breaker opened
    assert world.metric("spawn_llm_breaker", provider="anthropic", state="open") == 1
    assert world.ask(session).status_code == 200
    assert len(provider.requests) == attempts
