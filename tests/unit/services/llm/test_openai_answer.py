"""Answers of an OpenAI-compatible endpoint, translated for the Messages API."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import errors
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.services.llm import openai_answer
from orchestrator.services.llm.openai_answer import StreamTranslator

ESTIMATE = TokenCounts(input=100, output=50)
USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 10},
}
Json = dict[str, Any]


def call(index: int, arguments: str, **first: str) -> Json:
    function: Json = {"arguments": arguments}
    if first:
        function["name"] = first["name"]
        return {"index": index, "id": first["id"], "type": "function", "function": function}
    return {"index": index, "function": function}


def chunk(finish: str | None = None, **delta: Any) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c1", "model": "gpt-x", "choices": [choice], "usage": None}


def events(*chunks: Json) -> list[Json]:
    translator = StreamTranslator(ESTIMATE)
    fed = [event for chunk in chunks for event in translator.feed(chunk)]
    return fed + list(translator.finish())


def completion(finish: str = "stop", usage: Json | None = USAGE, **message: Any) -> Json:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"id": "c1", "model": "gpt-x", "choices": [choice], "usage": usage}


def assemble(stream: list[Json]) -> list[Json]:
    """The content that a client assembles. Fails if the events violate the stream's grammar."""
    content: list[Json] = []
    open_block = False
    for event in stream:
        if event["type"] == "content_block_start":
            assert not open_block
            assert event["index"] == len(content)
            content.append({**event["content_block"], "json": ""})
            open_block = True
        elif event["type"] == "content_block_delta":
            assert open_block
            assert event["index"] == len(content) - 1
            delta = event["delta"]
            if delta["type"] == "text_delta":
                content[-1]["text"] += delta["text"]
            else:
                content[-1]["json"] += delta["partial_json"]
        elif event["type"] == "content_block_stop":
            open_block = False
    assert not open_block
    for block in content:
        arguments = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(arguments or "{}")
    return content


def test_text_becomes_a_block_and_usage_comes_at_the_end() -> None:
    stream = events(
        chunk(role="assistant", content=""),
        chunk(content="Hel"),
        chunk(content="lo"),
        chunk("stop"),
        {"id": "c1", "choices": [], "usage": USAGE},
    )
    assert [event["type"] for event in stream] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert stream[0]["message"]["model"] == "gpt-x"
    assert stream[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert stream[-2]["usage"] == {
        "input_tokens": 20,
        "cache_read_input_tokens": 10,
        "cache_creation_input_tokens": 0,
        "output_tokens": 7,
    }


def test_several_tool_calls_after_text_become_blocks_one_after_the_other() -> None:
    stream = events(
        chunk(content="Now."),
        chunk(tool_calls=[call(0, "", id="call_a", name="write")]),
        chunk(tool_calls=[call(0, '{"path"')]),
        chunk(tool_calls=[call(0, ': "x"}')]),
        chunk(tool_calls=[call(1, "", id="call_b", name="list")]),
        chunk("tool_calls"),
    )
    assert assemble(stream) == [
        {"type": "text", "text": "Now."},
        {"type": "tool_use", "id": "call_a", "name": "write", "input": {"path": "x"}},
        {"type": "tool_use", "id": "call_b", "name": "list", "input": {}},
    ]
    assert stream[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal")],
)
def test_the_reason_to_stop_is_translated(finish: str, reason: str) -> None:
    assert events(chunk(finish, content="x"))[-2]["delta"]["stop_reason"] == reason
    assert openai_answer.translate_completion(completion(finish), ESTIMATE)["stop_reason"] == reason


def test_tool_calls_count_even_if_the_server_ends_with_stop() -> None:
    streamed = events(chunk("stop", tool_calls=[call(0, "{}", id="a", name="f")]))
    assert streamed[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_refusal_stays_a_refusal() -> None:
    stream = events(chunk("stop", refusal="I can't."))
    assert stream[-2]["delta"]["stop_reason"] == "refusal"
    assert assemble(stream) == [{"type": "text", "text": "I can't."}]
    whole = openai_answer.translate_completion(
        completion(content=None, refusal="I can't."), ESTIMATE
    )
    assert (whole["stop_reason"], whole["content"]) == ("refusal", assemble(stream))


def test_without_reported_usage_every_streamed_byte_counts_as_a_token() -> None:
    usage = events(chunk("stop", content="é!"))[-2]["usage"]
    assert usage == {"input_tokens": 100, "output_tokens": 3}
    whole = openai_answer.translate_completion(completion(usage=None, content="x"), ESTIMATE)
    assert whole["usage"] == {"input_tokens": 100, "output_tokens": 50}


def test_a_stream_without_an_end_has_broken_off() -> None:
    with pytest.raises(errors.Temporary, match="broke off"):
        events(chunk(content="Hel"))
    with pytest.raises(errors.Temporary, match="no room"):
        events(chunk(content="Hel"), {"error": {"message": "no room"}})


def test_mixed_pieces_of_tool_calls_are_refused() -> None:
    with pytest.raises(errors.Temporary, match="mixes"):
        events(
            chunk(tool_calls=[call(0, "{", id="a", name="f")]),
            chunk(tool_calls=[call(1, "{", id="b", name="g")]),
            chunk(tool_calls=[call(0, "}")]),
        )


def test_a_whole_answer_is_translated() -> None:
    calls = [
        {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": '{"a'}},
    ]
    whole = openai_answer.translate_completion(
        completion("tool_calls", content="Now.", tool_calls=calls), ESTIMATE
    )
    assert whole["content"] == [
        {"type": "text", "text": "Now."},
        {"type": "tool_use", "id": "call_a", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "call_b", "name": "g", "input": {}},
    ]
    assert whole["stop_reason"] == "tool_use"
    with pytest.raises(errors.Temporary):
        openai_answer.translate_completion({"choices": []}, ESTIMATE)


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (429, {"error": {"message": "slow down"}}, "rate_limit_error", "slow down"),
        (401, {"error": "who?"}, "authentication_error", "who?"),
        (502, None, "api_error", "status 502"),
        (422, {}, "invalid_request_error", "status 422"),
    ],
)
def test_errors_have_the_shape_of_the_messages_api(
    status: int, body: object, kind: str, message: str
) -> None:
    assert openai_answer.translate_error(status, body) == {
        "type": "error",
        "error": {"type": kind, "message": message},
    }


words = st.text(min_size=1)
arguments = st.dictionaries(st.text(), st.text() | st.integers())


@given(
    text=st.lists(words),
    inputs=st.lists(arguments),
    cuts=st.lists(st.integers(1, 5), min_size=1),
)
def test_a_stream_cut_anywhere_equals_the_whole_answer(
    text: list[str], inputs: list[Json], cuts: list[int]
) -> None:
    encoded = [json.dumps(tool_input) for tool_input in inputs]
    calls = [
        {
            "id": f"c{index}",
            "type": "function",
            "function": {"name": f"f{index}", "arguments": encoded_input},
        }
        for index, encoded_input in enumerate(encoded)
    ]
    whole = openai_answer.translate_completion(
        completion(content="".join(text) or None, tool_calls=calls), ESTIMATE
    )
    chunks = [chunk(content=piece) for piece in text]
    for index, arguments_text in enumerate(encoded):
        chunks.append(chunk(tool_calls=[call(index, "", id=f"c{index}", name=f"f{index}")]))
        step = cuts[index % len(cuts)]
        chunks += [
            chunk(tool_calls=[call(index, arguments_text[start : start + step])])
            for start in range(0, len(arguments_text), step)
        ]
    assert assemble(events(*chunks, chunk("stop"))) == whole["content"]


@pytest.mark.parametrize(
    "odd",
    [
        [],
        {"choices": None},
        {"choices": [{"message": None}]},
        {"choices": [{"message": "text"}]},
        {"choices": [{"message": {"tool_calls": [None]}}]},
        {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": None}},
    ],
    ids=str,
)
def test_an_odd_answer_is_the_endpoints_failure(odd: Any) -> None:
    with pytest.raises(errors.Temporary, match="chat completion"):
        openai_answer.translate_completion(odd, ESTIMATE)
