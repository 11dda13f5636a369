"""Answers of an OpenAI-compatible endpoint, translated for the Messages API."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import errors
from orchestrator.domain.llm import thoughts
from orchestrator.services.llm import openai_answer
from orchestrator.services.llm.openai_answer import StreamTranslator
from tests.unit.services.llm.openai_answers import (
    ESTIMATE,
    USAGE,
    Json,
    arguments,
    assemble,
    call,
    chunk,
    completion,
    events,
    issued,
    piece,
    whole_call,
)


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


REASONS: dict[Any, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "MAX_TOKENS": "max_tokens",
    "length_limit": "max_tokens",
    "context_length_exceeded": "model_context_window_exceeded",
    "content_filter": "refusal",
    "SAFETY": "refusal",
    "sensitive": "refusal",
    "eos": "end_turn",
    " Stop ": "end_turn",
    "tool_call": "end_turn",  # and there is none
    "function_call": "end_turn",
    "something new": "end_turn",
    7: "end_turn",
}


@pytest.mark.parametrize(("finish", "reason"), REASONS.items(), ids=str)
def test_the_reason_to_stop_is_translated(finish: Any, reason: str) -> None:
    assert events(chunk(finish, content="x"))[-2]["delta"]["stop_reason"] == reason
    assert (
        openai_answer.translate_completion(completion(finish, content="x"), ESTIMATE, "ours")[
            "stop_reason"
        ]
        == reason
    )


@pytest.mark.parametrize("finish", ["tool_call", "function_call", "stop", "EOS", "new", 7], ids=str)
def test_after_calls_the_client_is_to_run_them(finish: Any) -> None:
    calls = [whole_call(0)]
    stream = events(chunk(finish, tool_calls=calls))
    assert stream[-2]["delta"]["stop_reason"] == "tool_use"
    whole = openai_answer.translate_completion(
        completion(finish, tool_calls=calls), ESTIMATE, "ours"
    )
    assert whole["stop_reason"] == "tool_use"


@pytest.mark.parametrize("finish", ["error", "abort", "MALFORMED_FUNCTION_CALL"])
def test_an_answer_that_the_endpoint_gave_up_is_none(finish: str) -> None:
    with pytest.raises(errors.Temporary, match=f"broke off: {finish.lower()}"):
        events(chunk(content="Hel"), chunk(finish))
    with pytest.raises(errors.Temporary, match="broke off"):
        openai_answer.translate_completion(completion(finish, content="Hel"), ESTIMATE, "ours")


@pytest.mark.parametrize("none", [None, "", False, "null", "NONE"], ids=str)
def test_no_reason_is_none_however_it_is_written(none: Any) -> None:
    with pytest.raises(errors.Temporary, match="broke off"):
        events(chunk(none, content="Hel"))
    whole = openai_answer.translate_completion(completion(none, content="x"), ESTIMATE, "ours")
    assert whole["stop_reason"] == "end_turn"


def test_a_reason_to_stop_on_every_chunk_does_not_say_when_it_is_over() -> None:
    translator = StreamTranslator(ESTIMATE, "ours")
    list(translator.feed(chunk("stop", content="Hel")))
    assert translator.may_be_over
    list(translator.feed(chunk("stop", content="lo")))
    assert not translator.may_be_over
    assert [*translator.finish(is_done=False)][-1]["type"] == "message_stop"


def test_a_message_in_place_of_a_piece_counts_once() -> None:
    def with_message(text: str, **delta: Any) -> Json:
        message = {"role": "assistant", "content": text}
        return {"choices": [{"delta": delta or None, "message": message, "finish_reason": "stop"}]}

    assert assemble(events(with_message("Hello"))) == [{"type": "text", "text": "Hello"}]
    stream = events(
        chunk(content="Hel"), with_message("Hello", content="lo"), with_message("Hello")
    )
    assert assemble(stream) == [{"type": "text", "text": "Hello"}]


USAGES: list[tuple[Json, tuple[int, int, int]]] = [
    ({"prompt_tokens": "30", "completion_tokens": 6.5}, (30, 0, 7)),
    ({"prompt_tokens": 30, "completion_tokens": None}, (30, 0, 3)),
    ({"prompt_tokens": None, "completion_tokens": 7}, (100, 0, 7)),
    ({"prompt_tokens": 30, "total_tokens": 37}, (30, 0, 7)),
    ({"completion_tokens": 7, "total_tokens": 37}, (30, 0, 7)),
    ({"total_tokens": 37}, (34, 0, 3)),
    ({"total_tokens": 2}, (0, 0, 2)),
    ({"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 5}, (30, 0, 7)),
    ({"input_tokens": 30, "output_tokens": 7}, (30, 0, 7)),
    ({"prompt_tokens": 30, "completion_tokens": 7, "cached_tokens": 10}, (20, 10, 7)),
    ({"prompt_tokens": 30, "completion_tokens": 7, "prompt_cache_hit_tokens": 40}, (0, 30, 7)),
    ({"prompt_tokens": -5, "completion_tokens": 7}, (100, 0, 7)),
    ({"prompt_tokens": 1e300, "completion_tokens": 7}, (1_000_000_000, 0, 7)),
    ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (100, 0, 3)),
    ({"prompt_tokens": True, "completion_tokens": "much"}, (100, 0, 3)),
    ({}, (100, 0, 3)),
]


@pytest.mark.parametrize(("usage", "expected"), USAGES, ids=str)
def test_usage_is_read_however_it_is_written(usage: Json, expected: tuple[int, int, int]) -> None:
    last = events({**chunk("stop", content="abc"), "usage": usage})[-2]["usage"]
    counted = last["input_tokens"], last.get("cache_read_input_tokens", 0), last["output_tokens"]
    assert counted == expected


def test_usage_is_found_where_endpoints_report_it() -> None:
    usage = {"prompt_tokens": 30, "completion_tokens": 7}
    in_choice = chunk("stop", content="abc")
    in_choice["choices"][0]["usage"] = usage
    for last in (in_choice, {**chunk("stop", content="abc"), "x_groq": {"usage": usage}}):
        counted = events(last, {"choices": [], "usage": {"prompt_tokens": None}})[-2]["usage"]
        assert (counted["input_tokens"], counted["output_tokens"]) == (30, 7)


def test_an_answer_without_tool_calls_does_not_stop_for_them() -> None:
    assert events(chunk("tool_calls", content="x"))[-2]["delta"]["stop_reason"] == "end_turn"
    whole = openai_answer.translate_completion(
        completion("tool_calls", content="x"), ESTIMATE, "ours"
    )
    assert whole["stop_reason"] == "end_turn"


def test_a_refusal_stays_a_refusal() -> None:
    stream = events(chunk("stop", refusal="I can't."))
    assert stream[-2]["delta"]["stop_reason"] == "refusal"
    assert assemble(stream) == [{"type": "text", "text": "I can't."}]
    whole = openai_answer.translate_completion(
        completion(content=None, refusal="I can't."), ESTIMATE, "ours"
    )
    assert (whole["stop_reason"], whole["content"]) == ("refusal", assemble(stream))


def test_without_reported_usage_every_streamed_byte_counts_as_a_token() -> None:
    usage = events(chunk("stop", content="é!"))[-2]["usage"]
    assert usage == {"input_tokens": 100, "output_tokens": 3}
    whole = openai_answer.translate_completion(
        completion(usage=None, content="x"), ESTIMATE, "ours"
    )
    assert whole["usage"] == {"input_tokens": 100, "output_tokens": 50}


def test_a_stream_without_an_end_has_broken_off() -> None:
    with pytest.raises(errors.Temporary, match="broke off"):
        events(chunk(content="Hel"))
    with pytest.raises(errors.Temporary, match="no room"):
        events(chunk(content="Hel"), {"error": {"message": "no room"}})


def test_a_stream_whose_endpoint_says_that_it_is_done_needs_no_reason_to_stop() -> None:
    translator = StreamTranslator(ESTIMATE, "ours")
    fed = list(translator.feed(chunk(content="Hello")))
    last = [*fed, *translator.finish(is_done=True)][-2]
    assert last["delta"]["stop_reason"] == "end_turn"
    with pytest.raises(errors.Temporary, match="broke off"):
        list(StreamTranslator(ESTIMATE, "ours").finish(is_done=True))


def test_a_message_begins_with_its_first_content() -> None:
    translator = StreamTranslator(ESTIMATE, "ours")
    assert list(translator.feed(chunk(role="assistant", content=""))) == []
    assert next(iter(translator.feed(chunk(content="Now"))))["type"] == "message_start"


def test_an_error_instead_of_a_stream_is_passed_on_with_its_status() -> None:
    document = {"error": {"code": 429, "message": "slow down"}}
    (event,) = StreamTranslator(ESTIMATE, "ours").feed(document)
    assert event["error"] == {"type": "rate_limit_error", "message": "slow down"}
    assert openai_answer.find_error(document) == (429, event)
    assert openai_answer.find_error({"error": "no"}) is not None
    assert openai_answer.find_error({"error": None}) is None


def test_content_may_come_as_a_list_of_parts() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hel"}, "lo"]
    assert assemble(events(chunk("stop", content=parts))) == [{"type": "text", "text": "Hello"}]
    whole = openai_answer.translate_completion(completion(content=parts), ESTIMATE, "ours")
    assert whole["content"] == [{"type": "text", "text": "Hello"}]


FIELDS = (
    *("id", "choices", "message", "delta", "content", "tool_calls", "function", "name"),
    *("arguments", "usage", "prompt_tokens", "finish_reason", "index", "error", "refusal"),
    *("reasoning_content", "function_call", "x_groq", "total_tokens", "cached_tokens"),
    *("prompt_tokens_details", "completion_tokens", "model", "code"),
)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.lists(JSON, max_size=4))
def test_no_document_makes_the_translation_fail_otherwise(documents: list[Any]) -> None:
    translator = StreamTranslator(ESTIMATE, "ours")
    with contextlib.suppress(errors.Temporary):
        for document in documents:
            json.dumps(list(translator.feed(document)))
        json.dumps(list(translator.finish(is_done=True)))
    for document in documents:
        with contextlib.suppress(errors.Temporary):
            json.dumps(openai_answer.translate_completion(document, ESTIMATE, "ours"))


words = st.text(min_size=1)


def test_of_several_choices_the_first_one_that_came_is_read() -> None:
    other = {"index": 1, "delta": {"content": "B"}, "finish_reason": "length"}
    stream = events(
        chunk(content="A"),
        {"choices": [other, *chunk(content="a")["choices"]]},
        {"choices": [other]},
        {"choices": [{"delta": {"content": "!"}}]},
        chunk("stop"),
    )
    assert assemble(stream) == [{"type": "text", "text": "Aa!"}]
    assert stream[-2]["delta"]["stop_reason"] == "end_turn"


@pytest.mark.parametrize("field", thoughts.FIELDS)
def test_thoughts_are_blocks_that_say_in_which_field_they_were(field: str) -> None:
    stream = events(
        chunk(role="assistant", content="", **{field: ""}),
        chunk(**{field: "Hm"}),
        chunk(content=None, **{field: "."}),
        chunk(content="Now."),
        chunk(**{field: "And?"}, tool_calls=[whole_call(0)]),
        chunk("stop"),
    )
    signature = thoughts.signature(field)
    content = assemble(stream)
    assert content[0] == {"type": "thinking", "thinking": "Hm.", "signature": signature}
    kinds = [block["type"] for block in content]
    assert kinds == ["thinking", "text", "thinking", "tool_use"]
    message = completion(content="Now.", **{field: "Hm."})
    whole = openai_answer.translate_completion(message, ESTIMATE, "ours")
    assert whole["content"] == content[:2]


def test_thoughts_that_come_in_two_fields_count_once() -> None:
    content = assemble(events(chunk("stop", reasoning="Hm.", reasoning_content="Hm.")))
    assert [block["thinking"] for block in content] == ["Hm."]


@pytest.mark.parametrize("odd", [5, {"summary": "x"}, [{"summary": "x"}], False], ids=str)
def test_thoughts_of_another_form_cost_no_answer(odd: Any) -> None:
    stream = events(chunk("stop", content="Now.", reasoning=odd))
    assert assemble(stream) == [{"type": "text", "text": "Now."}]


def test_a_character_that_came_in_two_halves_is_passed_on_whole() -> None:
    stream = events(
        chunk(content="Hi \ud83d"),
        chunk(content="\ude00!\ud83d"),
        chunk(tool_calls=[piece("f", '{"a": "\ud83d', index=0, id="a")]),
        chunk(tool_calls=[piece(None, '\ude00"}', index=0)]),
        chunk("tool_calls"),
    )
    assert json.dumps(stream, ensure_ascii=False).encode()  # each delta alone is text
    content = assemble(stream)
    assert [block.get("text") or block["input"] for block in content] == [
        "Hi 😀!\ufffd",
        {"a": "😀"},
    ]


def test_parts_of_a_whole_answer_may_split_a_character() -> None:
    parts = [{"type": "text", "text": half} for half in ("\ud83d", "\ude00")]
    call = {"id": "a", "function": {"name": "f", "arguments": '{"a": "\ud83d\ude00"}'}}
    document = completion(content=parts, tool_calls=[call])
    content = openai_answer.translate_completion(document, ESTIMATE, "ours")["content"]
    assert [block.get("text") or block["input"] for block in content] == ["😀", {"a": "😀"}]


def test_a_whole_answer_is_translated() -> None:
    calls = [
        {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": '{"a'}},
    ]
    whole = openai_answer.translate_completion(
        completion("tool_calls", content="Now.", tool_calls=calls), ESTIMATE, "ours"
    )
    assert whole["content"] == [
        {"type": "text", "text": "Now."},
        {"type": "tool_use", "id": issued(0, "call_a"), "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": issued(1, "call_b"), "name": "g", "input": {}},
    ]
    assert whole["stop_reason"] == "tool_use"
    with pytest.raises(errors.Temporary):
        openai_answer.translate_completion({"choices": []}, ESTIMATE, "ours")


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
        completion(content="".join(text) or None, tool_calls=calls), ESTIMATE, "ours"
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
        {"choices": [{"message": {"content": 5}}]},
        {"choices": [{"message": {"tool_calls": [None]}}]},
        {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": None}},
        {"choices": [{"message": {"content": "x"}}], "usage": "much"},
    ],
    ids=str,
)
def test_an_odd_answer_is_either_translated_or_the_endpoints_failure(odd: Any) -> None:
    try:
        outcome = openai_answer.translate_completion(odd, ESTIMATE, "ours")["type"]
    except errors.Temporary as error:
        outcome = str(error)
    assert outcome == "message" or "the endpoint's answer" in outcome
