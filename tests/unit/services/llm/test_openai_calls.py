"""Tool calls of an OpenAI-compatible endpoint, in pieces, mixed, repeated or whole."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import errors
from orchestrator.services.llm import openai_answer
from orchestrator.services.llm.openai_answer import StreamTranslator
from tests.unit.services.llm.openai_answers import (
    ESTIMATE,
    Json,
    arguments,
    assemble,
    call,
    chunk,
    completion,
    events,
    issued,
    piece,
    pieces,
    whole_call,
)


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
        {"type": "tool_use", "id": issued(0, "call_a"), "name": "write", "input": {"path": "x"}},
        {"type": "tool_use", "id": issued(1, "call_b"), "name": "list", "input": {}},
    ]
    assert stream[-2]["delta"]["stop_reason"] == "tool_use"


def test_tool_calls_count_even_if_the_server_ends_with_stop() -> None:
    streamed = events(chunk("stop", tool_calls=[call(0, "{}", id="a", name="f")]))
    assert streamed[-2]["delta"]["stop_reason"] == "tool_use"


WHOLE_CALLS = [
    {"type": "tool_use", "name": "f0", "input": {"n": 0}},
    {"type": "tool_use", "name": "f1", "input": {"n": 1}},
]


ODD_CALLS: dict[str, list[Json]] = {
    "two whole calls with index 0": [
        chunk(tool_calls=[whole_call(0, index=0, id="a"), whole_call(1, index=0, id="b")])
    ],
    "two whole calls without an index": [
        chunk(tool_calls=[whole_call(0, id="a"), whole_call(1, id="b")])
    ],
    "two whole calls without index and id": [chunk(tool_calls=[whole_call(0), whole_call(1)])],
    "two whole calls with index 0 and without an id": [
        chunk(tool_calls=[whole_call(0, index=0), whole_call(1, index=0)])
    ],
    "two calls with index 0 in two chunks": pieces(
        whole_call(0, index=0, id="a"), whole_call(1, index=0, id="b")
    ),
    "arguments as an object": pieces(
        piece("f0", {"n": 0}, index=0, id="a"), piece("f1", {"n": 1}, index=1, id="b")
    ),
    "an empty id, and none, on later pieces": pieces(
        piece("f0", "", index=0, id="a"),
        piece("", '{"n"', index=0, id=""),
        piece(None, ": 0}", index=0, id=None),
        piece("f1", {}, index=1, id="b"),
        piece("", '{"n": 1}', id=""),
    ),
    "id and name again with each piece": pieces(
        piece("f0", '{"n"', index=0, id="a"),
        piece("f0", ": 0}", index=0, id="a"),
        piece("f1", '{"n": 1}', index=1, id="b"),
    ),
    "arguments encoded twice, in pieces": pieces(
        piece("f0", ' "{\\"n', index=0, id="a"),
        piece(None, '\\": 0}"', index=0),
        piece("f1", json.dumps('{"n": 1}'), index=1, id="b"),
    ),
    "a gap in the list, and numbers that are none": [
        chunk(tool_calls=[None, whole_call(0, index="x", id="a"), whole_call(1, index=[], id="b")])
    ],
    "one call in place of a list": [
        chunk(tool_calls=whole_call(0, id="a")),
        chunk(tool_calls=whole_call(1, id="b")),
    ],
    "as functions": [
        chunk(function_call={"name": "f0", "arguments": '{"n"'}),
        chunk(function_call={"arguments": ": 0}"}),
        chunk(function_call={"name": "f1", "arguments": {"n": 1}}),
    ],
    "numbers as text": [
        chunk(tool_calls=[whole_call(0, index="0", id=1), whole_call(1, index="1", id=2)])
    ],
}


@pytest.mark.parametrize("chunks", ODD_CALLS.values(), ids=ODD_CALLS)
def test_calls_are_told_apart_however_an_endpoint_numbers_them(chunks: list[Json]) -> None:
    stream = events(*chunks, chunk("stop"))
    content = assemble(stream)
    assert len({block.pop("id") for block in content}) == 2
    assert content == WHOLE_CALLS
    assert stream[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize("given", ['{"n": 0}', '"{\\"n\\": 0}"', {"n": 0}], ids=str)
def test_arguments_of_a_whole_answer_may_be_encoded_twice_or_not_at_all(given: Any) -> None:
    for call_ in (
        {"tool_calls": [piece("f0", given)]},
        {"function_call": {"name": "f0", "arguments": given}},
    ):
        whole = openai_answer.translate_completion(completion(**call_), ESTIMATE, "ours")
        assert whole["content"][0]["input"] == {"n": 0}


@pytest.mark.parametrize("odd", ["", [], None, '"', '"a"', '"\\ud83d"'], ids=repr)
def test_arguments_that_are_no_object_are_passed_on_as_they_are(odd: Any) -> None:
    stream = events(*pieces(piece("f", odd), piece("g", "{}")), chunk("stop"))
    starts = [event for event in stream if event["type"] == "content_block_start"]
    assert [event["content_block"]["name"] for event in starts] == ["f", "g"]
    assert json.dumps(stream, ensure_ascii=False).encode()


MIXED_CALLS: dict[str, list[Json]] = {
    "in turn": pieces(
        piece("f0", "", index=0, id="a"),
        piece("f1", "", index=1, id="b"),
        piece(None, '{"n"', index=0),
        piece(None, '{"n"', index=1),
        piece(None, ": 0}", index=0),
        piece(None, ": 1}", index=1),
    ),
    "the second one ends first": pieces(
        piece("f0", '{"n": ', index=0, id="a"),
        piece("f1", '{"n": 1}', index=1, id="b"),
        piece(None, "0}", index=0),
    ),
    "known by their ids alone": pieces(
        piece("f0", '{"n": ', id="a"),
        piece("f1", '{"n": ', id="b"),
        piece(None, "0}", id="a"),
        piece(None, "1}", id="b"),
    ),
    "in one chunk": [
        chunk(
            tool_calls=[
                piece("f0", '{"n": ', index=0, id="a"),
                piece("f1", '{"n": ', index=1, id="b"),
                piece("", "0}", index=0),
                piece("", "1}", index=1),
            ]
        )
    ],
    "empty pieces of one that has ended": pieces(
        piece("f0", '{"n": 0}', index=0, id="a"),
        piece("f1", '{"n": 1}', index=1, id="b"),
        piece(None, "", index=0),
        piece(None, " ", index=0),
    ),
    "the same id for all": pieces(
        piece("f0", '{"n": 0}', index=0, id="a"), piece("f1", '{"n": 1}', index=1, id="a")
    ),
    "another id with each piece": pieces(
        piece("f0", '{"n": ', index=0, id="a"),
        piece("f1", '{"n": ', index=1, id="b"),
        piece(None, "0}", index=0, id="c"),
        piece(None, "1}", index=1, id="d"),
    ),
}


@pytest.mark.parametrize("chunks", MIXED_CALLS.values(), ids=MIXED_CALLS)
def test_pieces_of_several_calls_may_be_mixed(chunks: list[Json]) -> None:
    content = assemble(events(*chunks, chunk("tool_calls")))
    assert len({block.pop("id") for block in content}) == 2
    assert content == WHOLE_CALLS


def test_a_call_without_arguments_is_told_from_the_next_one_by_its_name() -> None:
    content = assemble(events(*pieces(piece("f", ""), piece("g", "")), chunk("tool_calls")))
    assert [block["name"] for block in content] == ["f", "g"]


NAMES: dict[str, list[Json]] = {
    "the id on the first piece": pieces(
        piece("f", "", index=0, id="a"), piece("oo", "", index=0), piece(None, "{}", index=0)
    ),
    "the id on each piece": pieces(
        piece("f", "", index=0, id="a"), piece("oo", "{}", index=0, id="a")
    ),
    "the name so far on each piece": pieces(
        piece("f", "", index=0, id="a"), piece("foo", "", index=0, id="a")
    ),
    "empty arguments after the call": pieces(
        piece("foo", "{}", index=0, id="a"), piece("foo", "", index=0, id="a")
    ),
}


@pytest.mark.parametrize("chunks", NAMES.values(), ids=NAMES)
def test_a_name_may_come_in_pieces(chunks: list[Json]) -> None:
    content = assemble(events(*chunks, chunk("tool_calls")))
    assert [(block["name"], block["input"]) for block in content] == [("foo", {})]


def test_another_name_after_arguments_is_another_call() -> None:
    chunks = pieces(piece("f", "{}", index=0, id="a"), piece("g", "{}", index=0, id="a"))
    content = assemble(events(*chunks, chunk("tool_calls")))
    assert [block["name"] for block in content] == ["f", "g"]


@pytest.mark.parametrize("step", [1, 2, 3, 7])
@pytest.mark.parametrize("encode", [json.dumps, lambda value: json.dumps(json.dumps(value))])
@pytest.mark.parametrize("number", [{"id": "a"}, {"index": 0}], ids=str)
def test_each_piece_may_have_the_arguments_so_far(step: int, encode: Any, number: Json) -> None:
    arguments_of = {"path": "a.html", "content": 'p {} [1, {"path": 2}] {"path": "{'}
    text = encode(arguments_of)
    ends = [*range(step, len(text), step), len(text), len(text)]
    chunks = pieces(
        piece("f", "", index=0, id="a"), *(piece(None, text[:end], **number) for end in ends)
    )
    content = assemble(events(*chunks, chunk("tool_calls")))
    assert [block["input"] for block in content] == [arguments_of]


def test_text_between_the_pieces_of_a_call_comes_after_it() -> None:
    stream = events(
        chunk(content="Now.", tool_calls=[piece("f", '{"a": "}\\', index=0, id="a")]),
        chunk(content="And "),
        chunk(tool_calls=[piece(None, '"{"}', index=0)]),
        chunk(content="then."),
        chunk("tool_calls"),
    )
    content = assemble(stream)
    assert [block.get("text") or block["input"] for block in content] == [
        "Now.",
        {"a": '}"{'},
        "And then.",
    ]


def test_the_call_that_began_first_is_passed_on_as_it_comes() -> None:
    translator = StreamTranslator(ESTIMATE, "ours")
    chunks = pieces(
        piece("f0", '{"n"', index=0, id="a"),
        piece("f1", '{"n": 1}', index=1, id="b"),
        piece(None, ": 0}", index=0),
    )
    kinds = [[event["type"] for event in translator.feed(chunk)] for chunk in chunks]
    assert kinds == [
        ["message_start", "content_block_start", "content_block_delta"],
        [],
        ["content_block_delta", "content_block_stop", "content_block_start", "content_block_delta"],
    ]


def test_what_follows_a_call_without_arguments_is_passed_on_as_it_comes() -> None:
    translator = StreamTranslator(ESTIMATE, "ours")
    chunks = pieces(
        piece("f0", "{}", index=0, id="a"),
        piece("f1", "{}", index=1, id="b"),
        piece("f2", '{"n"', index=2, id="c"),
    )
    stream = [list(translator.feed(chunk)) for chunk in chunks]
    assert [event["type"] for event in stream[-1]][-2:] == [
        "content_block_start",
        "content_block_delta",
    ]
    assert stream[-1][-1]["index"] == 2


def test_arguments_may_come_after_empty_ones_of_several_calls() -> None:
    chunks = pieces(
        piece("f0", "{}", index=0, id="a"),
        piece("f1", "{}", index=1, id="b"),
        piece(None, '{"n": 0}', index=0),
        piece(None, '{"n": 1}', index=1),
    )
    content = assemble(events(*chunks, chunk("tool_calls")))
    assert [block["input"] for block in content] == [{"n": 0}, {"n": 1}]


def test_a_call_that_has_ended_cannot_go_on() -> None:
    with pytest.raises(errors.Temporary, match="has ended"):
        events(
            *pieces(
                piece("f0", '{"n": 0}', index=0, id="a"),
                piece("f1", '{"n": 1}', index=1, id="b"),
                piece(None, '{"n": 2}', index=0),
            )
        )


def test_a_call_that_has_no_name_is_none() -> None:
    with pytest.raises(errors.Temporary, match="hasn't begun"):
        events(*pieces(piece(None, "{}", index=0, id="a")))


@given(
    inputs=st.lists(arguments, min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    order=st.randoms(use_true_random=False),
)
def test_calls_mixed_in_any_order_equal_the_calls_one_after_the_other(
    inputs: list[Json], cuts: list[int], order: Random
) -> None:
    waiting = []
    for index, arguments_of in enumerate(inputs):
        text, step = json.dumps(arguments_of), cuts[index]
        parts = [text[start : start + step] for start in range(0, len(text), step)]
        first = piece(f"f{index}", "", index=index, id=f"c{index}")
        waiting.append([first, *(piece(None, part, index=index) for part in parts)])
    begun = [calls.pop(0) for calls in waiting]
    mixed = []
    while any(waiting):
        mixed.append(order.choice([calls for calls in waiting if calls]).pop(0))
    content = assemble(events(*pieces(*begun, *mixed), chunk("tool_calls")))
    assert [block["input"] for block in content] == inputs
