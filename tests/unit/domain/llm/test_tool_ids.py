"""Ids of tool calls: what clients are told, and what providers are told again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.llm import tool_ids

PATTERN = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # of the Messages API, with the length of Bedrock
SHORT = re.compile(r"[a-zA-Z0-9]{9}")  # of Mistral, the strictest
FIELD_IDS = [
    *("", "call_0", "functions.write_file:12", "D681PevKs", "é" * 5, "a b", "x" * 300, "\ud83d"),
    "chatcmpl-tool-0123456789abcdef0123456789abcdef",
]


def turn(*call_ids: str, results: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """An answer with these calls, and the message with their results."""
    calls = [{"type": "tool_use", "id": id_, "name": "f", "input": {}} for id_ in call_ids]
    answered = call_ids if results is None else results
    return [
        {"role": "assistant", "content": calls},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": id_} for id_ in answered],
        },
    ]


def ids_in(body: Any) -> list[str]:
    blocks = [block for message in body["messages"] for block in message["content"]]
    return [block.get("id") or block["tool_use_id"] for block in blocks]


def for_completions(*messages: dict[str, Any]) -> list[str]:
    return ids_in(tool_ids.for_completions({"messages": list(messages)}))


def for_messages(*messages: dict[str, Any]) -> list[str]:
    return ids_in(tool_ids.for_messages({"messages": list(messages)}))


@pytest.mark.parametrize("given_id", FIELD_IDS, ids=lambda id_: repr(id_)[:20])
def test_an_issued_id_fits_every_messages_api(given_id: str) -> None:
    assert PATTERN.fullmatch(tool_ids.issue("a", 0, given_id))


def test_issued_ids_are_unique_in_an_answer_and_across_answers() -> None:
    issued = [tool_ids.issue(answer, number, "a") for answer in "xyz" for number in range(12)]
    assert len({*issued}) == len(issued)


@pytest.mark.parametrize(
    "given_id", ["call_0", "functions.write_file:12", "D681PevKs", FIELD_IDS[-1]]
)
def test_a_provider_is_told_its_own_id_again(given_id: str) -> None:
    issued = tool_ids.issue("a", 0, given_id)
    assert for_completions(*turn(issued)) == [given_id, given_id]


@pytest.mark.parametrize("given_id", ["", "x" * 300, "\ud83d", "é" * 30])
def test_a_call_whose_id_there_is_no_room_for_gets_one_that_all_providers_take(
    given_id: str,
) -> None:
    call, result = for_completions(*turn(tool_ids.issue("a", 0, given_id)))
    assert call == result
    assert SHORT.fullmatch(call)


@pytest.mark.parametrize("foreign", ["toolu_01A09q90qw90lq917835lq9", "oai_no", "oai_0123456789_x"])
def test_a_call_of_another_provider_gets_one_too(foreign: str) -> None:
    call, result = for_completions(*turn(foreign))
    assert call == result
    assert SHORT.fullmatch(call)


def test_calls_to_which_a_provider_gave_one_id_are_told_apart() -> None:
    first, second = (tool_ids.issue("x", number, "a") for number in (0, 1))
    third = tool_ids.issue("y", 0, "a")
    given_ids = for_completions(*turn(first, second), *turn(third))
    assert len({given_ids[0], given_ids[1], given_ids[4]}) == 3
    assert given_ids[2:4] == given_ids[:2]
    assert given_ids[5] == given_ids[4]


@pytest.mark.parametrize("names", [for_completions, for_messages])
def test_calls_that_a_client_returns_with_one_id_keep_their_results(names: Any) -> None:
    renamed = names(*turn("a", "a"), *turn("a"))
    assert len({renamed[0], renamed[1], renamed[4]}) == 3
    assert renamed[2:4] == renamed[:2]
    assert renamed[5] == renamed[4]


def test_names_stay_the_same_as_a_conversation_grows() -> None:
    begun = [*turn("a", "a"), *turn(tool_ids.issue("x", 0, "b"))]
    assert for_completions(*begun, *turn("a", "b"))[:6] == for_completions(*begun)


def test_a_result_without_its_call_keeps_a_name_of_its_own() -> None:
    (result,) = for_completions(*turn(results=["toolu_1"]))
    assert SHORT.fullmatch(result)
    issued = tool_ids.issue("x", 0, "b")
    assert for_completions(*turn(results=[issued, issued])) == ["b", "b"]
    assert for_messages(*turn(results=["toolu_1", "x:1"]))[0] == "toolu_1"


def test_a_second_result_belongs_to_the_last_call() -> None:
    issued = tool_ids.issue("x", 0, "b")
    assert for_completions(*turn(issued, results=[issued, issued])) == ["b"] * 3


def test_a_conversation_that_fits_the_messages_api_stays_the_same_object() -> None:
    body = {"messages": [*turn("toolu_1", tool_ids.issue("a", 0, "functions.x:0")), "odd", {}]}
    assert tool_ids.for_messages(body) is body
    assert tool_ids.for_messages({"messages": "odd"}) == {"messages": "odd"}


@pytest.mark.parametrize("odd", ["functions.x:0", "", "x" * 65, "é"])
def test_the_messages_api_is_told_ids_that_it_takes(odd: str) -> None:
    call, result = for_messages(*turn(odd))
    assert call == result
    assert PATTERN.fullmatch(call)


@given(
    st.lists(st.lists(st.sampled_from(FIELD_IDS) | st.text(max_size=60), max_size=4), max_size=6)
)
def test_however_providers_name_calls_each_has_a_name_and_its_result(
    answers: list[list[str]],
) -> None:
    messages: list[dict[str, Any]] = []
    for number, given_ids in enumerate(answers):
        issued = [
            tool_ids.issue(str(number), at, given_id) for at, given_id in enumerate(given_ids)
        ]
        messages += turn(*issued)
    renamed = for_completions(*messages)
    calls: list[str] = []
    for given_ids in answers:
        names, renamed = renamed[: 2 * len(given_ids)], renamed[2 * len(given_ids) :]
        assert names[: len(given_ids)] == names[len(given_ids) :]
        calls += names[: len(given_ids)]
    assert len({*calls}) == len(calls)


@given(st.text(alphabet=st.characters(codec="ascii"), min_size=1, max_size=15))
def test_an_id_with_room_comes_back_as_it_was(given_id: str) -> None:
    call, result = for_completions(*turn(tool_ids.issue("a", 0, given_id)))
    assert (call, result) == (given_id, given_id)
