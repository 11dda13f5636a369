"""The fake Messages API must behave like the real one for the real client, the anthropic SDK."""

import asyncio
import json
from typing import get_args

import anthropic
import httpx2
import pytest
from anthropic.types import Message, MessageParam, ModelParam

from tests.contract.messages_api.sdk import (
    BODY,
    HEADERS,
    MODEL,
    TEXT,
    TOOL,
    ask,
    content,
    error_of,
    post,
)
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import (
    Cut,
    Drip,
    ErrorTurn,
    MalformedToolInput,
    MaxTokens,
    Refusal,
    TextTurn,
    ToolTurn,
    Turn,
)

TURNS: tuple[tuple[Turn, str], ...] = (
    (TextTurn(text=TEXT), "end_turn"),
    (TextTurn(text=TEXT, thinking="Let me see what they mean."), "end_turn"),
    (ToolTurn(name="write_files", input={"files": [{"path": "ä\n", "content": TEXT}]}), "tool_use"),
    (ToolTurn(name="write_files", input={}, text="Now.", thinking="Hm."), "tool_use"),
    (MaxTokens(turn=TextTurn(text=TEXT)), "max_tokens"),
    (Refusal(text="No.", category=None, explanation=None), "refusal"),
    (Drip(delay_s=0.001, turn=TextTurn(text=TEXT)), "end_turn"),
)


@pytest.mark.parametrize(("turn", "stop_reason"), TURNS)
def test_sync_client_reads_the_same_message_from_a_stream_and_from_a_body(
    api: MessagesApi, client: anthropic.Anthropic, turn: Turn, stop_reason: str
) -> None:
    api.always(turn)
    whole, streamed = ask(client), ask(client, streamed=True)
    assert whole.stop_reason == streamed.stop_reason == stop_reason
    assert content(whole) == content(streamed) != []
    assert whole.usage == streamed.usage
    assert whole.stop_details == streamed.stop_details
    assert whole._request_id is not None


@pytest.mark.parametrize(("turn", "stop_reason"), TURNS)
def test_async_client_reads_the_same_message_from_a_stream_and_from_a_body(
    api: MessagesApi, turn: Turn, stop_reason: str
) -> None:
    api.always(turn)

    async def both() -> tuple[Message, Message]:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=api.url, max_retries=0) as client:
            messages: list[MessageParam] = [{"role": "user", "content": "Hello"}]
            whole = await client.messages.create(model=MODEL, max_tokens=500, messages=messages)
            async with client.messages.stream(
                model=MODEL, max_tokens=500, messages=messages
            ) as stream:
                return whole, await stream.get_final_message()

    whole, streamed = asyncio.run(both())
    assert whole.stop_reason == streamed.stop_reason == stop_reason
    assert content(whole) == content(streamed) != []


def test_what_the_turn_says_is_what_the_client_reads(
    api: MessagesApi, client: anthropic.Anthropic
) -> None:
    tool_input = {"files": [{"path": "a.txt", "content": TEXT}]}
    api.play(ToolTurn(name="write_files", input=tool_input, text=TEXT, thinking="Hm."))
    thinking, text, call = ask(client, streamed=True).content
    assert thinking.type == "thinking"
    assert (thinking.thinking, bool(thinking.signature)) == ("Hm.", True)
    assert text.type == "text"
    assert text.text == TEXT
    assert call.type == "tool_use"
    assert (call.name, call.input) == ("write_files", tool_input)


def test_raw_stream_keeps_to_the_event_grammar(api: MessagesApi) -> None:
    api.play(ToolTurn(name="write_files", input={"a": "b" * 200}, text="Now.", thinking="Hm."))
    response = post(api, BODY | {"stream": True, "max_tokens": 500})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["request-id"].startswith("req_")
    frames = [frame.split("\n") for frame in response.text.removesuffix("\n\n").split("\n\n")]
    events = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [line for line, _ in frames] == [f"event: {event['type']}" for event in events]
    deltas = [event["delta"]["type"] for event in events if event["type"] == "content_block_delta"]
    assert deltas[:4] == ["thinking_delta", "signature_delta", "text_delta", "input_json_delta"]
    assert len(deltas) > 10
    shape = [event["type"] for event in events if event["type"] != "content_block_delta"]
    block = ["content_block_start", "content_block_stop"]
    start = ["message_start", "content_block_start", "ping", "content_block_stop"]
    assert shape == [*start, *block, *block, "message_delta", "message_stop"]
    assert events[0]["message"]["content"] == []
    assert events[0]["message"]["stop_reason"] is None
    assert events[0]["message"]["usage"]["input_tokens"] > 0
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    assert events[-2]["usage"]["output_tokens"] > 50


def test_sdk_sees_the_category_of_a_refusal(api: MessagesApi, client: anthropic.Anthropic) -> None:
    api.play(Refusal(category="cyber", explanation="Not that."))
    details = ask(client, streamed=True).stop_details
    assert details is not None
    assert (details.type, details.category, details.explanation) == (
        "refusal",
        "cyber",
        "Not that.",
    )


def test_tool_input_that_hits_max_tokens_stays_half(
    api: MessagesApi, client: anthropic.Anthropic
) -> None:
    api.play(MaxTokens(turn=ToolTurn(name="write_files", input={"a": 1, "b": "x" * 100})))
    message = ask(client, streamed=True)
    (call,) = message.content
    assert message.stop_reason == "max_tokens"
    assert call.type == "tool_use"
    assert "x" * 100 not in str(call.input)


@pytest.mark.parametrize("streamed", [False, True])
def test_request_that_allows_few_tokens_gets_no_more(
    client: anthropic.Anthropic, streamed: bool
) -> None:
    message = ask(client, streamed=streamed, max_tokens=20)
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens <= 21


def test_malformed_tool_input_fails_in_the_stream_helper_of_the_sdk(
    api: MessagesApi, client: anthropic.Anthropic
) -> None:
    api.play(MalformedToolInput())
    with pytest.raises(ValueError, match="Unable to parse tool parameter JSON"):
        ask(client, streamed=True)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (400, "invalid_request_error", anthropic.BadRequestError),
        (401, "authentication_error", anthropic.AuthenticationError),
        (403, "permission_error", anthropic.PermissionDeniedError),
        (404, "not_found_error", anthropic.NotFoundError),
        (413, "request_too_large", anthropic.APIStatusError),
        (429, "rate_limit_error", anthropic.RateLimitError),
        (500, "api_error", anthropic.InternalServerError),
        (529, "overloaded_error", anthropic.InternalServerError),
    ],
)
def test_error_turn_raises_the_sdk_exception_of_its_status(
    api: MessagesApi,
    client: anthropic.Anthropic,
    streamed: bool,
    status: int,
    kind: str,
    error: type[anthropic.APIStatusError],
) -> None:
    api.play(ErrorTurn(status=status, type=kind, message="So it is.", retry_after=1.5))
    with pytest.raises(error) as raised:
        ask(client, streamed=streamed)
    assert (raised.value.status_code, raised.value.type) == (status, kind)
    assert raised.value.response.headers["retry-after"] == "1.5"
    assert str(raised.value.request_id).startswith("req_")


def test_sdk_retries_an_overload_and_then_reads_the_answer(api: MessagesApi) -> None:
    api.play(ErrorTurn(retry_after=0.01), ErrorTurn(retry_after=0.01), TextTurn(text="Here."))
    with anthropic.Anthropic(api_key="k", base_url=api.url, max_retries=2) as client:
        assert content(ask(client)) == [{"type": "text", "text": "Here."}]
    counts = [request.headers["x-stainless-retry-count"] for request in api.requests]
    assert counts == ["0", "1", "2"]


def test_error_event_in_a_stream_raises_after_the_events_before_it(
    api: MessagesApi, client: anthropic.Anthropic
) -> None:
    api.play(ErrorTurn(after_events=5))
    events: list[str] = []
    with (
        pytest.raises(anthropic.APIStatusError) as raised,
        client.messages.create(stream=True, **BODY) as stream,
    ):
        events.extend(event.type for event in stream)
    assert raised.value.type == "overloaded_error"
    # The SDK swallows the ping, which is the third of the five.
    assert events == ["message_start", "content_block_start", *["content_block_delta"] * 2]


@pytest.mark.parametrize("after_events", [0, 1, 6])
def test_cut_stream_ends_in_a_connection_error(
    api: MessagesApi, client: anthropic.Anthropic, after_events: int
) -> None:
    api.play(Cut(after_events=after_events, turn=TextTurn(text=TEXT)))
    with pytest.raises((httpx2.RemoteProtocolError, anthropic.APIConnectionError)):
        ask(client, streamed=True)


def test_cut_body_ends_in_a_connection_error(api: MessagesApi, client: anthropic.Anthropic) -> None:
    api.play(Cut(after_events=1))
    with pytest.raises(anthropic.APIConnectionError):
        ask(client)


@pytest.mark.parametrize("delay_s", [-0.1, 1.1])
def test_drip_slower_than_a_second_an_event_is_refused(delay_s: float) -> None:
    with pytest.raises(ValueError, match="delay_s"):
        Drip(delay_s=delay_s)


def test_client_that_walks_away_from_a_drip_does_not_hold_the_server(
    api: MessagesApi, client: anthropic.Anthropic
) -> None:
    api.play(Drip(delay_s=1.0, turn=TextTurn(text="x" * 10_000)), TextTurn(text="Next."))
    with client.messages.create(stream=True, **BODY) as stream:
        assert next(iter(stream)).type == "message_start"
    assert content(ask(client)) == [{"type": "text", "text": "Next."}]


def test_counted_tokens_are_the_input_tokens_of_the_same_request(
    client: anthropic.Anthropic,
) -> None:
    messages: list[MessageParam] = [{"role": "user", "content": "A kanban board"}]
    counted = client.messages.count_tokens(model=MODEL, messages=messages, tools=[TOOL])
    assert counted.input_tokens == ask(client, *messages).usage.input_tokens
    shorter = client.messages.count_tokens(model=MODEL, messages=messages)
    assert 0 < shorter.input_tokens < counted.input_tokens


def test_key_and_version_are_required_as_the_service_requires_them() -> None:
    unauthorized, invalid = (401, "authentication_error"), (400, "invalid_request_error")
    with MessagesApi(key="k") as api:
        assert post(api, BODY).status_code == 200
        bearer = {"authorization": "Bearer k", "anthropic-version": "2026-10-21"}
        assert post(api, BODY, bearer).status_code == 200
        assert error_of(post(api, BODY, bearer | {"authorization": "Bearer other"})) == unauthorized
        assert error_of(post(api, BODY, {"anthropic-version": "2023-06-01"})) == unauthorized
        assert error_of(post(api, BODY, HEADERS | {"x-api-key": "other"})) == unauthorized
        assert error_of(post(api, BODY, {"x-api-key": "k"})) == invalid
        assert error_of(post(api, BODY, HEADERS | {"anthropic-version": "2024-10-22"})) == invalid


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff\xfe",
        [],
        *({name: value for name, value in BODY.items() if name != missing} for missing in BODY),
        BODY | {"max_tokens": 0},
        BODY | {"max_tokens": "64"},
        BODY | {"model": 5},
        BODY | {"messages": []},
        BODY | {"messages": "Hello"},
        BODY | {"messages": [{"role": "robot", "content": "Hello"}]},
        BODY | {"messages": [{"role": "user"}]},
        BODY | {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        BODY | {"messages": [{"role": "user", "content": "\ud800"}]},
        BODY | {"tools": [{"name": "write_files"}]},
        BODY | {"tools": {}},
    ],
)
def test_malformed_body_is_an_invalid_request_and_uses_up_no_turn(
    api: MessagesApi, body: object
) -> None:
    api.play(TextTurn(text="Kept."))
    assert error_of(post(api, body)) == (400, "invalid_request_error")
    assert post(api, BODY).json()["content"] == [{"type": "text", "text": "Kept."}]


def test_sampling_parameters_are_turned_down_by_the_newest_version_alone(api: MessagesApi) -> None:
    newest = HEADERS | {"anthropic-version": "2026-10-21"}
    body = BODY | {"temperature": 1.0}
    assert error_of(post(api, body, newest)) == (400, "invalid_request_error")
    assert post(api, body, HEADERS).status_code == 200


def test_unknown_model_and_unknown_path_are_not_found(
    api: MessagesApi, client: anthropic.Anthropic
) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model: gpt-9"):
        client.messages.create(**BODY | {"model": "gpt-9"})
    unknown = httpx2.get(f"{api.url}/v1/nothing", headers=HEADERS, trust_env=False)
    assert error_of(unknown) == (404, "not_found_error")


def test_every_model_that_the_sdk_names_is_known(api: MessagesApi) -> None:
    names = get_args(get_args(ModelParam)[0])
    assert MODEL in names
    for name in names:
        assert post(api, BODY | {"model": name}).json()["model"] == name


def test_requests_are_recorded_with_headers_and_body_even_when_turned_down(
    api: MessagesApi, client: anthropic.Anthropic
) -> None:
    client.messages.create(**BODY)
    post(api, b"{", {})
    valid, invalid = api.wait_for_requests(2)
    assert (valid.path, valid.body) == ("/v1/messages", BODY)
    assert valid.headers["authorization"] == "Bearer k"
    assert invalid.body is None
    with pytest.raises(TimeoutError, match="2 of 3"):
        api.wait_for_requests(3, within_s=0.01)
