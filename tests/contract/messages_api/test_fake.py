"""The fake Messages API against the real client: the anthropic SDK must believe it."""

import asyncio
import html
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import anthropic
import httpx2
import pytest
from anthropic.types import Message, MessageParam, ModelParam, ToolParam

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

MODEL = "claude-sonnet-5-5"
SAID = 'Grüße, 世界! 🎉 \\ "quoted"\nand a second line that is long enough for several pieces.'
TOOL: ToolParam = {
    "name": "write_files",
    "description": "Write the app.",
    "input_schema": {"type": "object", "properties": {"files": {"type": "array"}}},
}
HEADERS = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
BODY: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Hello"}],
}


@pytest.fixture(scope="module")
def server() -> Iterator[MessagesApi]:
    with MessagesApi() as server:
        yield server


@pytest.fixture
def api(server: MessagesApi) -> MessagesApi:
    server.reset()
    return server


@pytest.fixture
def client(api: MessagesApi) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="k", base_url=api.url, max_retries=0) as sdk:
        yield sdk


def ask(
    client: anthropic.Anthropic,
    *messages: MessageParam,
    streamed: bool = False,
    tools: tuple[ToolParam, ...] = (TOOL,),
    max_tokens: int = 20_000,
) -> Message:
    told: list[MessageParam] = list(messages) or [{"role": "user", "content": "A kanban board"}]
    if not streamed:
        return client.messages.create(
            model=MODEL, max_tokens=max_tokens, messages=told, tools=tools
        )
    with client.messages.stream(
        model=MODEL, max_tokens=max_tokens, messages=told, tools=tools
    ) as stream:
        return stream.get_final_message()


def content(message: Message) -> list[dict[str, Any]]:
    """The content without the ids, which differ from answer to answer."""
    return [{k: v for k, v in b.to_dict().items() if k != "id"} for b in message.content]


def post(api: MessagesApi, body: object, headers: dict[str, str] = HEADERS) -> httpx2.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx2.post(f"{api.url}/v1/messages", content=raw, headers=headers, trust_env=False)


def error_of(response: httpx2.Response) -> tuple[int, str]:
    answer = response.json()
    assert answer["type"] == "error"
    assert answer["error"]["message"]
    assert answer["request_id"] == response.headers["request-id"]
    return response.status_code, answer["error"]["type"]


TURNS: tuple[tuple[Turn, str], ...] = (
    (TextTurn(text=SAID), "end_turn"),
    (TextTurn(text=SAID, thinking="Let me see what they mean."), "end_turn"),
    (ToolTurn(name="write_files", input={"files": [{"path": "ä\n", "content": SAID}]}), "tool_use"),
    (ToolTurn(name="write_files", input={}, text="Now.", thinking="Hm."), "tool_use"),
    (MaxTokens(turn=TextTurn(text=SAID)), "max_tokens"),
    (Refusal(text="No.", category=None, explanation=None), "refusal"),
    (Drip(delay_s=0.001, turn=TextTurn(text=SAID)), "end_turn"),
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
            said: list[MessageParam] = [{"role": "user", "content": "Hello"}]
            whole = await client.messages.create(model=MODEL, max_tokens=500, messages=said)
            async with client.messages.stream(model=MODEL, max_tokens=500, messages=said) as stream:
                return whole, await stream.get_final_message()

    whole, streamed = asyncio.run(both())
    assert whole.stop_reason == streamed.stop_reason == stop_reason
    assert content(whole) == content(streamed) != []


def test_what_the_turn_says_is_what_the_client_reads(
    api: MessagesApi, client: anthropic.Anthropic
) -> None:
    called = {"files": [{"path": "a.txt", "content": SAID}]}
    api.play(ToolTurn(name="write_files", input=called, text=SAID, thinking="Hm."))
    thought, words, call = ask(client, streamed=True).content
    assert thought.type == "thinking"
    assert (thought.thinking, bool(thought.signature)) == ("Hm.", True)
    assert words.type == "text"
    assert words.text == SAID
    assert call.type == "tool_use"
    assert (call.name, call.input) == ("write_files", called)


def test_raw_stream_keeps_to_the_event_grammar(api: MessagesApi) -> None:
    api.play(ToolTurn(name="write_files", input={"a": "b" * 200}, text="Now.", thinking="Hm."))
    response = post(api, BODY | {"stream": True, "max_tokens": 500})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["request-id"].startswith("req_")
    frames = [frame.split("\n") for frame in response.text.removesuffix("\n\n").split("\n\n")]
    events = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [line for line, _ in frames] == [f"event: {event['type']}" for event in events]
    deltas = [e["delta"]["type"] for e in events if e["type"] == "content_block_delta"]
    assert deltas[:4] == ["thinking_delta", "signature_delta", "text_delta", "input_json_delta"]
    assert len(deltas) > 10
    shape = [event["type"] for event in events if event["type"] != "content_block_delta"]
    block = ["content_block_start", "content_block_stop"]
    first = ["message_start", "content_block_start", "ping", "content_block_stop"]
    assert shape == [*first, *block, *block, "message_delta", "message_stop"]
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
    seen: list[str] = []
    with (
        pytest.raises(anthropic.APIStatusError) as raised,
        client.messages.create(stream=True, **BODY) as stream,
    ):
        seen.extend(event.type for event in stream)
    assert raised.value.type == "overloaded_error"
    # The SDK swallows the ping, which is the third of the five.
    assert seen == ["message_start", "content_block_start", *["content_block_delta"] * 2]


@pytest.mark.parametrize("after_events", [0, 1, 6])
def test_cut_stream_ends_in_a_connection_error(
    api: MessagesApi, client: anthropic.Anthropic, after_events: int
) -> None:
    api.play(Cut(after_events=after_events, turn=TextTurn(text=SAID)))
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
    bad, missing = (401, "authentication_error"), (400, "invalid_request_error")
    with MessagesApi(key="k") as api:
        assert post(api, BODY).status_code == 200
        bearer = {"authorization": "Bearer k", "anthropic-version": "2026-10-21"}
        assert post(api, BODY, bearer).status_code == 200
        assert error_of(post(api, BODY, bearer | {"authorization": "Bearer other"})) == bad
        assert error_of(post(api, BODY, {"anthropic-version": "2023-06-01"})) == bad
        assert error_of(post(api, BODY, HEADERS | {"x-api-key": "other"})) == bad
        assert error_of(post(api, BODY, {"x-api-key": "k"})) == missing
        assert error_of(post(api, BODY, HEADERS | {"anthropic-version": "2024-10-22"})) == missing


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff\xfe",
        [],
        *({k: v for k, v in BODY.items() if k != missing} for missing in BODY),
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
    warm = BODY | {"temperature": 1.0}
    assert error_of(post(api, warm, newest)) == (400, "invalid_request_error")
    assert post(api, warm, HEADERS).status_code == 200


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
    good, bad = api.wait_for_requests(2)
    assert (good.path, good.body) == ("/v1/messages", BODY)
    assert good.headers["authorization"] == "Bearer k"
    assert bad.body is None
    with pytest.raises(TimeoutError, match="2 of 3"):
        api.wait_for_requests(3, within_s=0.01)


def written(message: Message) -> tuple[dict[str, Any], dict[str, str]]:
    call = message.content[-1]
    assert call.type == "tool_use"
    given: Any = call.input
    return given["manifest"], {file["path"]: file["content"] for file in given["files"]}


def test_default_script_echoes_the_prompt_when_it_has_no_tool(client: anthropic.Anthropic) -> None:
    assert "A kanban board" in str(content(ask(client, tools=())))


@pytest.mark.parametrize(
    ("prompt", "kind", "start"),
    [
        ("A <b>kanban</b> & board", "static", []),
        ("A capital nodes map", "static", []),
        ("An API for notes", "python", ["python", "main.py"]),
        ("a FastAPI service, not Node", "python", ["python", "main.py"]),
        ("A Node.js API for notes", "node", ["node", "server.js"]),
    ],
)
def test_default_script_writes_the_kind_of_app_that_the_prompt_names(
    client: anthropic.Anthropic, prompt: str, kind: str, start: list[str]
) -> None:
    message = ask(client, {"role": "user", "content": prompt}, streamed=True)
    manifest, files = written(message)
    assert message.stop_reason == "tool_use"
    assert manifest == {"kind": kind, "title": prompt, "start": start}
    page = files["index.html" if kind == "static" else "public/index.html"]
    assert f"<title>{html.escape(prompt)}</title>" in page
    assert f"<h1>{html.escape(prompt)}</h1>" in page
    assert start[1:] == [name for name in files if name in {"main.py", "server.js"}]


@pytest.mark.parametrize(("failed", "stop_reason"), [(False, "end_turn"), (True, "tool_use")])
def test_default_script_ends_after_a_good_tool_result_and_writes_again_after_a_bad_one(
    client: anthropic.Anthropic, failed: bool, stop_reason: str
) -> None:
    prompt: MessageParam = {"role": "user", "content": [{"type": "text", "text": "A <quiz>"}]}
    first = ask(client, prompt)
    call = first.content[-1]
    assert call.type == "tool_use"
    said: MessageParam = {"role": "assistant", "content": first.content}
    result: MessageParam = {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": call.id, "content": "x", "is_error": failed}
        ],
    }
    second = ask(client, prompt, said, result)
    assert second.stop_reason == stop_reason
    if failed:
        assert written(second) == written(first)


@pytest.mark.parametrize("prompt", ["A python <list>", "A node <list>"])
def test_server_app_of_the_default_script_runs_and_keeps_its_list(
    client: anthropic.Anthropic, tmp_path: Path, prompt: str
) -> None:
    manifest, files = written(ask(client, {"role": "user", "content": prompt}))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    runtime = {"python": sys.executable}.get(manifest["start"][0], manifest["start"][0])
    environment = {"PORT": str(port), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    app = subprocess.Popen([runtime, *manifest["start"][1:]], cwd=tmp_path, env=environment)
    transport = httpx2.HTTPTransport(retries=8)  # backs off between attempts to connect
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", transport=transport) as web:
            page = web.get("/")
            assert page.headers["content-type"].startswith("text/html")
            assert f"<h1>{html.escape(prompt)}</h1>" in page.text
            assert "fetch(api" in web.get("/app.js").text
            assert web.get("/style.css").headers["content-type"].startswith("text/css")
            assert web.get("/api/items").json() == []
            web.put("/api/items", json=["milk"]).raise_for_status()
            assert web.get("/api/items").json() == ["milk"]
            assert web.get("/main.py").status_code == 404
    finally:
        app.terminate()
        app.wait(timeout=30)


def test_command_line_serves_on_the_port_that_it_prints_and_stops_on_a_signal() -> None:
    command = [sys.executable, "-m", "tests.fakes.llm.messages_api", "--port", "0", "--key", "k"]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().removeprefix("listening on ").strip()
            for key, expected in (("k", 200), ("other", 401)):
                headers = HEADERS | {"x-api-key": key}
                answer = httpx2.post(
                    f"{url}/v1/messages", json=BODY, headers=headers, trust_env=False
                )
                assert answer.status_code == expected
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=30) in (0, -signal.SIGTERM)
        finally:
            server.kill()
