"""Answers of an OpenAI-compatible endpoint, as the Messages API gives them."""

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
    made = [event for one in chunks for event in translator.feed(one)]
    return made + list(translator.finish())


def completion(finish: str = "stop", usage: Json | None = USAGE, **said: Any) -> Json:
    choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": finish}
    return {"id": "c1", "model": "gpt-x", "choices": [choice], "usage": usage}


def assembled(made: list[Json]) -> list[Json]:
    """The content that a client puts together; fails on what the grammar of a stream forbids."""
    content: list[Json] = []
    open_block = False
    for event in made:
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


def test_words_become_a_text_block_and_usage_comes_at_the_end() -> None:
    made = events(
        chunk(role="assistant", content=""),
        chunk(content="Hel"),
        chunk(content="lo"),
        chunk("stop"),
        {"id": "c1", "choices": [], "usage": USAGE},
    )
    assert [event["type"] for event in made] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert made[0]["message"]["model"] == "gpt-x"
    assert made[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert made[-2]["usage"] == {
        "input_tokens": 20,
        "cache_read_input_tokens": 10,
        "cache_creation_input_tokens": 0,
        "output_tokens": 7,
    }


def test_several_tool_calls_after_words_become_blocks_one_after_the_other() -> None:
    made = events(
        chunk(content="Now."),
        chunk(tool_calls=[call(0, "", id="call_a", name="write")]),
        chunk(tool_calls=[call(0, '{"path"')]),
        chunk(tool_calls=[call(0, ': "x"}')]),
        chunk(tool_calls=[call(1, "", id="call_b", name="list")]),
        chunk("tool_calls"),
    )
    assert assembled(made) == [
        {"type": "text", "text": "Now."},
        {"type": "tool_use", "id": "call_a", "name": "write", "input": {"path": "x"}},
        {"type": "tool_use", "id": "call_b", "name": "list", "input": {}},
    ]
    assert made[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal")],
)
def test_the_reason_to_stop_is_translated(finish: str, reason: str) -> None:
    assert events(chunk(finish, content="x"))[-2]["delta"]["stop_reason"] == reason
    assert openai_answer.message_of(completion(finish), ESTIMATE)["stop_reason"] == reason


def test_calls_are_to_be_run_also_where_a_server_stops_plainly_after_them() -> None:
    streamed = events(chunk("stop", tool_calls=[call(0, "{}", id="a", name="f")]))
    assert streamed[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_refusal_is_a_refusal() -> None:
    made = events(chunk("stop", refusal="I can't."))
    assert made[-2]["delta"]["stop_reason"] == "refusal"
    assert assembled(made) == [{"type": "text", "text": "I can't."}]
    whole = openai_answer.message_of(completion(content=None, refusal="I can't."), ESTIMATE)
    assert (whole["stop_reason"], whole["content"]) == ("refusal", assembled(made))


def test_an_endpoint_that_tells_no_usage_is_charged_by_the_byte() -> None:
    usage = events(chunk("stop", content="é!"))[-2]["usage"]
    assert usage == {"input_tokens": 100, "output_tokens": 3}
    whole = openai_answer.message_of(completion(usage=None, content="x"), ESTIMATE)
    assert whole["usage"] == {"input_tokens": 100, "output_tokens": 50}


def test_a_stream_that_is_not_at_its_end_has_broken_off() -> None:
    with pytest.raises(errors.Temporary, match="broke off"):
        events(chunk(content="Hel"))
    with pytest.raises(errors.Temporary, match="no room"):
        events(chunk(content="Hel"), {"error": {"message": "no room"}})


def test_calls_whose_pieces_are_mixed_are_refused_and_not_garbled() -> None:
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
    whole = openai_answer.message_of(
        completion("tool_calls", content="Now.", tool_calls=calls), ESTIMATE
    )
    assert whole["content"] == [
        {"type": "text", "text": "Now."},
        {"type": "tool_use", "id": "call_a", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "call_b", "name": "g", "input": {}},
    ]
    assert whole["stop_reason"] == "tool_use"
    with pytest.raises(errors.Temporary):
        openai_answer.message_of({"choices": []}, ESTIMATE)


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
    assert openai_answer.error_of(status, body) == {
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
def test_however_a_stream_is_cut_it_says_what_the_whole_answer_says(
    text: list[str], inputs: list[Json], cuts: list[int]
) -> None:
    encoded = [json.dumps(one) for one in inputs]
    calls = [
        {"id": f"c{at}", "type": "function", "function": {"name": f"f{at}", "arguments": said}}
        for at, said in enumerate(encoded)
    ]
    whole = openai_answer.message_of(
        completion(content="".join(text) or None, tool_calls=calls), ESTIMATE
    )
    chunks = [chunk(content=piece) for piece in text]
    for at, said in enumerate(encoded):
        chunks.append(chunk(tool_calls=[call(at, "", id=f"c{at}", name=f"f{at}")]))
        step = cuts[at % len(cuts)]
        chunks += [
            chunk(tool_calls=[call(at, said[begin : begin + step])])
            for begin in range(0, len(said), step)
        ]
    assert assembled(events(*chunks, chunk("stop"))) == whole["content"]
