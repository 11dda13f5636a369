"""An answer put together from its events, whole or not."""

from __future__ import annotations

from typing import Any

import pytest
from agent.generator.reply import Reply

Event = dict[str, Any]


def block(index: int, kind: str, *deltas: Event, ends: bool = True, **fields: Any) -> list[Event]:
    begin = {
        "type": "content_block_start",
        "index": index,
        "content_block": {"type": kind, **fields},
    }
    middle = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    end = [{"type": "content_block_stop", "index": index}] if ends else []
    return [begin, *middle, *end]


def call(index: int, *pieces: str, ends: bool = True) -> list[Event]:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return block(index, "tool_use", *deltas, ends=ends, id=f"t{index}", name="run", input={})


def stop(reason: str) -> Event:
    return {
        "type": "message_delta",
        "delta": {"stop_reason": reason},
        "usage": {"output_tokens": 7},
    }


THOUGHT = block(
    0,
    "thinking",
    {"type": "thinking_delta", "thinking": "Hm"},
    {"type": "thinking_delta", "thinking": "m."},
    {"type": "signature_delta", "signature": "sig"},
    thinking="",
    signature="",
)


def reply(*parts: list[Event] | Event) -> Reply:
    answer = Reply()
    for part in parts:
        for event in part if isinstance(part, list) else [part]:
            answer.feed(event)
    return answer


def test_thoughts_words_and_calls_come_together_in_their_order() -> None:
    words = block(1, "text", {"type": "text_delta", "text": "Now"}, text="")
    answer = reply(
        {"type": "message_start"}, THOUGHT, words, call(2, '{"a"', ": 1}"), stop("tool_use")
    )

    assert answer.content == [
        {"type": "thinking", "thinking": "Hmm.", "signature": "sig"},
        {"type": "text", "text": "Now"},
        {"type": "tool_use", "id": "t2", "name": "run", "input": {"a": 1}},
    ]
    assert [(call.id, call.input) for call in answer.calls] == [("t2", {"a": 1})]
    assert (answer.stop_reason, answer.output_tokens, answer.text) == ("tool_use", 7, "Now")


def test_a_call_that_is_no_json_object_is_kept_as_one_without_input() -> None:
    answer = reply(call(0, "{oops"), call(1, "[1]"), call(2), stop("tool_use"))

    assert [call.input for call in answer.calls] == [None, None, {}]
    assert all(block["input"] == {} for block in answer.content)


def test_a_lone_surrogate_that_no_request_could_hold_is_replaced() -> None:
    answer = reply(
        call(0, '{"path": "a", "content": "x\\ud83dy \\ud83d\\ude00"}'), stop("tool_use")
    )

    assert [call.input for call in answer.calls] == [{"path": "a", "content": "x\ufffdy 😀"}]


def test_a_character_that_came_in_two_halves_is_whole() -> None:
    words = [{"type": "text_delta", "text": half} for half in ("Hi \ud83d", "\ude00")]
    thoughts = [{"type": "thinking_delta", "thinking": half} for half in ("\ud83d", "\ude00")]
    answer = reply(
        block(0, "thinking", *thoughts, thinking="", signature=""),
        block(1, "text", *words, text=""),
        call(2, '{"content": "\ud83d', '\ude00"}'),
        stop("tool_use"),
    )

    assert [block.get("thinking") or block.get("text") for block in answer.content[:2]] == [
        "😀",
        "Hi 😀",
    ]
    assert answer.text == "Hi 😀"
    assert [call.input for call in answer.calls] == [{"content": "😀"}]
    assert reply(block(0, "text", *words, text="", ends=False)).text == "Hi 😀"


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded"])
def test_a_call_that_was_cut_off_by_the_limit_of_tokens_is_dropped(reason: str) -> None:
    answer = reply(call(0, '{"a": 1}'), call(1, '{"b": '), stop(reason))

    assert [call.id for call in answer.calls] == ["t0"]
    assert reply(call(0, '{"b": '), stop(reason)).calls == []
    assert [call.id for call in reply(call(0, '{"a": [1]}'), stop(reason)).calls] == ["t0"]
    assert reply(stop(reason)).calls == []


def test_what_should_be_a_text_becomes_one() -> None:
    odd: dict[str, Any] = {"id": 5, "name": ["x"], "input": None}
    end = {"type": "message_delta", "delta": {"stop_details": {"explanation": 5}}}
    answer = reply(block(0, "tool_use", **odd), block(1, "text", text=None), stop("end_turn"), end)

    assert [(call.id, call.name, call.input) for call in answer.calls] == [("5", "['x']", {})]
    assert (answer.text, answer.stop_text, answer.output_tokens) == ("", "5", 7)
    assert answer.stop_reason == "end_turn"


def test_blocks_may_all_have_the_same_number() -> None:
    words = block(0, "text", {"type": "text_delta", "text": "Now"}, text="")
    answer = reply(words, call(0, '{"a": 1}'), call(0, "{oops"), stop("tool_use"))

    assert [block["type"] for block in answer.content] == ["text", "tool_use", "tool_use"]
    assert [call.input for call in answer.calls] == [{"a": 1}, None]  # and the ids are the same


@pytest.mark.parametrize(("reason", "inputs"), [("tool_use", [{"a": 1}]), ("max_tokens", [])])
def test_the_end_of_the_answer_is_that_of_blocks_which_have_none(
    reason: str, inputs: list[Any]
) -> None:
    calls = call(0, '{"a": 1}', ends=False), call(1, '{"b": ', ends=False)
    answer = reply(*calls, stop(reason), {"type": "message_stop"})

    assert [call.input for call in answer.calls] == inputs
    assert answer.has_unfinished_call


def test_events_deltas_and_blocks_that_nobody_knows_are_not_repeated() -> None:
    odd = {"type": "odd_delta", "text": "?"}
    answer = reply(
        {"type": "odd_event", "index": 0},
        block(0, "odd", odd, {"type": "text_delta", "text": "?"}),
        block(1, "text", odd, {"type": "text_delta", "text": "Now"}, text=""),
        stop("pause_turn"),
        {"type": "message_stop"},
    )
    assert answer.content == [{"type": "text", "text": "Now"}]
    assert (answer.text, answer.stop_reason) == ("Now", "pause_turn")


def test_the_numbers_of_blocks_may_be_text() -> None:
    events = [*call(0, '{"a": 1}'), *call(1, '{"a": 2}')]
    numbered = [{**event, "index": str(event["index"])} for event in events]
    answer = reply(numbered, stop("tool_use"))
    assert [each.input for each in answer.calls] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"output_tokens": 7.9}, 7),
        ({"output_tokens": float("inf")}, 0),
        ({"output_tokens": float("nan")}, 0),
        ({"output_tokens": "7"}, 0),
        ({"output_tokens": None}, 0),
        (None, 0),
    ],
    ids=str,
)
def test_an_odd_count_of_tokens_costs_no_answer(usage: Any, tokens: int) -> None:
    event = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    assert reply([event]).output_tokens == tokens


def test_a_second_delta_of_the_message_takes_nothing_back() -> None:
    last = {"type": "message_delta", "delta": None, "usage": None}
    answer = reply(stop("end_turn"), last)
    assert (answer.stop_reason, answer.output_tokens) == ("end_turn", 7)


def test_blocks_that_never_ended_do_not_count_but_are_known() -> None:
    answer = reply(call(0, '{"a": 1}'), call(1, '{"b": ', ends=False))

    assert [call.id for call in answer.calls] == ["t0"]
    assert answer.has_unfinished_call


def test_an_answer_that_is_nothing_but_thought_can_not_go_back() -> None:
    answer = reply(THOUGHT, block(1, "text", text=""), stop("end_turn"))

    assert answer.content == []


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": ' + "[" * 100_000, '{"a":' * 9 + "1" + "}" * 9]
)
def test_an_input_too_deep_for_anybody_is_no_input(text: str) -> None:
    (first,) = reply(call(0, text), stop("tool_use")).calls

    assert first.input is None


@pytest.mark.parametrize(
    "event",
    [
        {"type": "content_block_start", "index": 0, "content_block": {}},
        {"type": "content_block_start", "index": [], "content_block": {"type": "text"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use"}},
        {"type": "content_block_delta", "index": 9, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "content_block_delta", "index": 0},
        {"type": "content_block_stop", "index": 9},
        {"type": "message_delta", "delta": 5},
    ],
)
def test_an_event_that_makes_no_sense_is_refused_when_it_arrives(event: Event) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        reply([event])
