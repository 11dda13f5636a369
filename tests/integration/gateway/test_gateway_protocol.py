"""The gateway as clients see it: the Messages API byte for byte, with either kind of provider."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from orchestrator.domain.llm.usage import GroupBy
from orchestrator.domain.sessions.session import Session
from tests.compat import answers
from tests.fakes.llm.odd_provider import OddProvider
from tests.fakes.llm.providers import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    WORDS,
    ProviderFake,
    Scripted,
    frame,
    stream_of,
)
from tests.fakes.samples import later
from tests.integration.gateway.world import (
    BODY,
    KEY,
    MODEL,
    TOOL,
    GatewayWorld,
    events_of,
    gateway_for,
    settings_for,
)

PROVIDERS = ("anthropic", "openai")
ANSWER = "".join(WORDS)


@pytest.fixture
def world(provider: ProviderFake, tmp_path: Path, migrated_sqlite: Path) -> Iterator[GatewayWorld]:
    with gateway_for(settings_for(tmp_path, provider), migrated_sqlite) as gateway:
        yield gateway


@pytest.fixture(params=PROVIDERS)
def any_world(
    request: pytest.FixtureRequest, provider: ProviderFake, tmp_path: Path, migrated_sqlite: Path
) -> Iterator[GatewayWorld]:
    """A gateway in front of Anthropic's API, then one in front of an OpenAI-compatible endpoint."""
    changes: dict[str, Any] = {}
    if request.param == "openai":
        changes = {
            "anthropic_api_key": "",
            "openai_base_url": provider.url + "/v1",
            "openai_model": "gpt-x",
        }
    with gateway_for(settings_for(tmp_path, provider, **changes), migrated_sqlite) as gateway:
        yield gateway


def test_the_sdk_gets_a_whole_message_with_a_tool_call(any_world: GatewayWorld) -> None:
    with any_world.sdk(any_world.session()) as sdk:
        message = sdk.messages.create(**BODY, tools=[TOOL])  # type: ignore[call-overload]
    assert message.stop_reason == "tool_use"
    assert (message.content[0].text, message.content[1].input) == (ANSWER, {"path": "a"})
    assert (message.usage.input_tokens, message.usage.output_tokens) == (
        INPUT_TOKENS,
        OUTPUT_TOKENS,
    )


def test_the_sdk_puts_together_a_stream_with_a_tool_call(any_world: GatewayWorld) -> None:
    with (
        any_world.sdk(any_world.session()) as sdk,
        sdk.messages.stream(**BODY, tools=[TOOL]) as stream,
    ):
        message = stream.get_final_message()
    assert message.stop_reason == "tool_use"
    assert (message.content[0].text, message.content[1].input) == (ANSWER, {"path": "a"})
    assert message.usage.output_tokens == OUTPUT_TOKENS


def test_the_sdk_puts_together_a_message_that_came_as_a_whole(
    tmp_path: Path, migrated_sqlite: Path
) -> None:
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "text", "text": "Now."},
        {"type": "tool_use", "id": "toolu_1", "name": "write_file", "input": {"path": "a"}},
    ]
    answer = {**answers.MESSAGE, "content": content, "stop_reason": "tool_use"}
    with (
        OddProvider(answers.always(answers.whole(answer))) as provider,
        gateway_for(settings_for(tmp_path, provider), migrated_sqlite) as world,
    ):
        session = world.session()
        with world.sdk(session) as sdk, sdk.messages.stream(**BODY, tools=[TOOL]) as stream:
            message = stream.get_final_message()
        assert [block.to_dict() for block in message.content] == content
        assert message.stop_reason == "tool_use"
        ((name, calls, tokens, _),) = world.accounts(session)
        assert (name, calls, tokens) == ("anthropic", 1, sum(answers.USAGE.values()))


def test_the_async_sdk_works_too_streamed_and_whole(any_world: GatewayWorld) -> None:
    session = any_world.session()

    async def both() -> tuple[Any, Any]:
        async with any_world.sdk_async(session) as sdk:
            whole = await sdk.messages.create(**BODY)
            async with sdk.messages.stream(**BODY) as stream:
                return whole, await stream.get_final_message()

    for message in asyncio.run(both()):
        assert message.content[0].text == ANSWER


def test_the_sdk_counts_tokens(any_world: GatewayWorld) -> None:
    session = any_world.session()
    with any_world.sdk(session) as sdk:
        counted = sdk.messages.count_tokens(model=MODEL, messages=BODY["messages"])
    assert counted.input_tokens > 0
    assert any_world.accounts(session) == []


def test_bytes_and_headers_pass_as_they_are_and_credentials_do_not(
    world: GatewayWorld, provider: ProviderFake
) -> None:
    session = world.session()
    raw = b'{ "max_tokens":9 , "messages":[{"role":"user","content":"\\u0048i"}],"model":"%s"}'
    headers = {
        "authorization": f"Bearer {world.token(session)}",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "interleaved-thinking-2025-05-14,claude-code-20250219",
        "anthropic-dangerous-direct-browser-access": "true",
        "user-agent": "claude-cli/2.1.0 (external, cli)",
        "x-app": "cli",
        "x-stainless-lang": "js",
        "cookie": "spawn_user=x",
        "content-type": "application/json",
    }
    provider.play(Scripted(headers={"request-id": "req_theirs", "anthropic-organization-id": "o"}))
    answer = world.http().post(
        "/v1/messages?beta=true", content=raw % MODEL.encode(), headers=headers
    )
    (request,) = provider.requests
    assert (request.path, request.query) == ("/v1/messages", "beta=true")
    assert request.body["messages"][0]["content"] == "Hi"
    for name in headers:
        assert (name in request.headers) is (name not in {"authorization", "cookie"}), name
    assert request.headers["x-api-key"] == KEY
    assert request.headers["accept-encoding"] == "identity"
    assert answer.headers["request-id"] == "req_theirs"
    assert answer.headers["anthropic-organization-id"] == "o"


def test_a_stream_passes_byte_for_byte_pings_included(
    world: GatewayWorld, provider: ProviderFake
) -> None:
    body = {**BODY, "stream": True}
    answer = world.ask(world.session(), stream=True)
    assert answer.content == b"".join(frame(event) for event in stream_of(body))
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["request-id"].startswith("req_")


def test_a_stream_is_not_held_back_until_its_end(
    world: GatewayWorld, provider: ProviderFake
) -> None:
    session = world.session()
    provider.hold(after_events=2)
    headers = {"x-api-key": world.token(session)}
    with world.http().stream(
        "POST", "/v1/messages", json={**BODY, "stream": True}, headers=headers
    ) as answer:
        chunks = answer.iter_raw()
        body = b""
        while b"content_block_start" not in body:
            body += next(chunks)
        provider.release()
        body += b"".join(chunks)
    assert [event["type"] for event in events_of(body)][-1] == "message_stop"


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("after_events", [None, 3])
def test_a_client_that_goes_away_cancels_the_call_and_pays_for_what_came(
    world: GatewayWorld, provider: ProviderFake, streamed: bool, after_events: int | None
) -> None:
    session = world.session()
    provider.hold(after_events=after_events if streamed else None)
    asyncio.run(_ask_and_hang_up(world, session, provider, streamed))
    provider.wait_for(cancelled=1)
    provider.release()
    world.ask(session)  # its account is written after the first one's
    sums = world.deps.store.usage.session_sums(session.id)
    assert sum(row.calls for row in sums) == 2
    assert world.metric(
        "spawn_llm_calls_total", provider="anthropic", outcome="cancelled"
    ) == pytest.approx(1)


async def _ask_and_hang_up(
    world: GatewayWorld, session: Session, provider: ProviderFake, streamed: bool
) -> None:
    transport = httpx2.AsyncHTTPTransport(uds=str(world.socket))
    async with httpx2.AsyncClient(transport=transport, timeout=30) as client:
        request = asyncio.create_task(
            client.post(
                "http://home/v1/messages",
                json={**BODY, "stream": streamed},
                headers={"x-api-key": world.token(session)},
            )
        )
        await asyncio.to_thread(provider.wait_for, requests=1)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)


@pytest.mark.parametrize(
    ("changes", "status", "kind"),
    [
        ({"model": "claude-opus-5-5"}, 404, "not_found_error"),
        ({"max_tokens": 0}, 400, "invalid_request_error"),
        ({"tools": [{"type": "web_search_20260318", "name": "w"}]}, 400, "invalid_request_error"),
    ],
)
def test_what_is_refused_is_refused_in_the_apis_own_shape_and_never_forwarded(
    world: GatewayWorld, provider: ProviderFake, changes: dict[str, Any], status: int, kind: str
) -> None:
    session = world.session()
    answer = world.ask(session, **changes)
    assert answer.status_code == status
    error = answer.json()
    assert (error["type"], error["error"]["type"]) == ("error", kind)
    assert error["request_id"] == answer.headers["request-id"]
    assert provider.requests == []
    with world.sdk(session) as sdk, pytest.raises(anthropic.APIStatusError) as caught:
        sdk.messages.create(**{**BODY, **changes})
    assert caught.value.status_code == status


def test_a_token_that_is_not_ours_or_no_longer_valid_is_refused(
    world: GatewayWorld, provider: ProviderFake
) -> None:
    with world.http() as client:
        for headers, status in (
            ({}, 401),
            ({"x-api-key": "sk-something"}, 401),
            ({"authorization": "Basic x"}, 401),
        ):
            answer = client.post("/v1/messages", json=BODY, headers=headers)
            assert (answer.status_code, answer.json()["error"]["type"]) == (
                status,
                "authentication_error",
            )
    session = world.session()
    saved = world.deps.store.sessions.get(session.id)
    token = world.token(saved)
    world.deps.store.sessions.save(replace(saved, attempt=2))
    answer = world.http().post("/v1/messages", json=BODY, headers={"x-api-key": token})
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")
    assert provider.requests == []


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("POST", "/v1/models", 405, "invalid_request_error"),
        ("POST", "/v1/files", 404, "not_found_error"),
        ("GET", "/v1/models/gpt-x", 404, "not_found_error"),
        ("POST", "/v1/", 404, "not_found_error"),
    ],
)
def test_what_is_not_offered_is_an_error_of_the_api_too(
    world: GatewayWorld, method: str, path: str, status: int, kind: str
) -> None:
    headers = {"x-api-key": world.token(world.session())}
    answer = world.http().request(method, path, headers=headers)
    assert answer.status_code == status
    error = answer.json()
    assert (error["type"], error["error"]["type"]) == ("error", kind)
    assert error["request_id"] == answer.headers["request-id"]
    assert ("allow" in answer.headers) is (status == 405)


def test_what_agents_are_not_offered_is_a_problem(world: GatewayWorld) -> None:
    headers = {"authorization": f"Bearer {world.token(world.session())}"}
    answer = world.http().post("/agent/other", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_sdk_lists_the_models_that_are_allowed(
    provider: ProviderFake, tmp_path: Path, migrated_sqlite: Path
) -> None:
    settings = settings_for(tmp_path, provider, models="claude-haiku-5")
    with gateway_for(settings, migrated_sqlite) as world:
        with world.sdk(world.session()) as sdk:
            assert [model.id for model in sdk.models.list()] == [MODEL, "claude-haiku-5"]
            assert sdk.models.retrieve(MODEL).id == MODEL
            with pytest.raises(anthropic.NotFoundError):
                sdk.models.retrieve("claude-opus-5-5")
        answer = world.http().get("/v1/models", headers={"x-api-key": "sk-something"})
        assert (answer.status_code, answer.json()["type"]) == (401, "error")


def test_a_source_that_the_provider_would_fetch_is_never_forwarded(
    world: GatewayWorld, provider: ProviderFake
) -> None:
    picture = {"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/"}}
    answer = world.ask(world.session(), messages=[{"role": "user", "content": [picture]}])
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert provider.requests == []


def test_a_request_that_is_too_large_is_refused(world: GatewayWorld) -> None:
    session = world.session()
    answer = world.ask(session, system="x" * (33 * 1024**2))
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "request_too_large")


def test_an_error_of_the_request_passes_as_the_provider_said_it(
    world: GatewayWorld, provider: ProviderFake
) -> None:
    provider.play(Scripted(status=400, error="invalid_request_error", headers={"x-odd": "1"}))
    session = world.session()
    answer = world.ask(session)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "scripted 400"
    assert len(provider.requests) == 1
    assert world.accounts(session) == []
    assert world.metric("spawn_llm_calls_total", provider="anthropic", outcome="refused") == 1


def test_a_stream_that_breaks_off_breaks_off_for_the_client_and_is_accounted(
    world: GatewayWorld, provider: ProviderFake
) -> None:
    provider.play(Scripted(cut_after=4))
    session = world.session()
    with pytest.raises(httpx2.RemoteProtocolError):
        world.ask(session, stream=True)
    world.ask(session)
    ((name, calls, tokens, _),) = world.accounts(session)
    assert (name, calls) == ("anthropic", 2)
    assert tokens >= 2 * INPUT_TOKENS + OUTPUT_TOKENS
    assert world.metric("spawn_llm_calls_total", provider="anthropic", outcome="cut") == 1


def test_every_call_is_accounted_with_tokens_cost_provider_and_time(world: GatewayWorld) -> None:
    session = world.session()
    world.ask(session)
    world.ask(session, stream=True)
    micro = 2 * (INPUT_TOKENS * 2 + OUTPUT_TOKENS * 10)
    assert world.accounts(session) == [("anthropic", 2, 2 * (INPUT_TOKENS + OUTPUT_TOKENS), micro)]
    (by_user,) = world.deps.store.usage.sums(GroupBy.USER, since=later(-(10**6)))
    assert (by_user.key, by_user.micro_usd) == (session.user_id, micro)
    assert world.metric("spawn_llm_tokens_total", provider="anthropic", kind="output") == 14


def test_without_any_provider_the_setting_is_named(tmp_path: Path, migrated_sqlite: Path) -> None:
    with gateway_for(settings_for(tmp_path, None), migrated_sqlite) as world:
        answer = world.ask(world.session())
    assert answer.status_code == 401
    assert "ANTHROPIC_API_KEY" in answer.json()["error"]["message"]
