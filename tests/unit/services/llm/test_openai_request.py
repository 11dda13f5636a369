"""Requests of the Messages API, translated for an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import errors
from orchestrator.domain.llm import thoughts, tool_ids
from orchestrator.services.llm import openai_request

HELLO = {"role": "user", "content": "Hello"}
TOOL = {
    "name": "write_file",
    "description": "Write it.",
    "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}},
}


def translate(**fields: Any) -> dict[str, Any]:
    body = {"model": "claude-x", "max_tokens": 50, "messages": [HELLO], **fields}
    return openai_request.translate(body, model="gpt-x", limit_field="max_completion_tokens")


def translate_messages(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    translation: list[dict[str, Any]] = translate(messages=list(messages))["messages"]
    return translation


def test_a_plain_request_keeps_its_text_and_its_limit() -> None:
    assert translate(
        system="Be brief.", temperature=0.5, top_k=5, stop_sequences=["END"], metadata={}
    ) == {
        "model": "gpt-x",
        "max_completion_tokens": 50,
        "messages": [{"role": "system", "content": "Be brief."}, HELLO],
        "temperature": 0.5,
        "stop": ["END"],
    }


def test_a_stream_asks_for_its_usage() -> None:
    assert translate(stream=True)["stream_options"] == {"include_usage": True}


def test_the_limit_has_the_name_that_the_endpoint_knows() -> None:
    body = {"max_tokens": 7, "messages": [HELLO]}
    request = openai_request.translate(body, model="m", limit_field="max_tokens")
    assert request["max_tokens"] == 7


def test_a_system_prompt_in_blocks_is_joined_and_loses_its_cache_marks() -> None:
    blocks = [
        {"type": "text", "text": "One.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Two."},
    ]
    assert translate(system=blocks)["messages"][0] == {"role": "system", "content": "One.\nTwo."}


def test_a_conversation_with_tools_keeps_calls_results_and_their_order() -> None:
    answer = [
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"type": "text", "text": "I'll write it."},
        {"type": "tool_use", "id": "toolu_1", "name": "write_file", "input": {"path": "é"}},
        {"type": "tool_use", "id": "toolu_2", "name": "write_file", "input": {}},
    ]
    results = [
        {"type": "text", "text": "And now?"},
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "done"},
        {
            "type": "tool_result",
            "tool_use_id": "toolu_2",
            "is_error": True,
            "content": [{"type": "text", "text": "no"}, {"type": "text", "text": "path"}],
        },
    ]
    assistant, first, second, user = translate_messages(
        {"role": "assistant", "content": answer}, {"role": "user", "content": results}
    )
    assert assistant["content"] == "I'll write it."
    ids = [call["id"] for call in assistant["tool_calls"]]
    assert len({*ids}) == 2
    function = assistant["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("write_file", {"path": "é"})
    assert first == {"role": "tool", "tool_call_id": ids[0], "content": "done"}
    assert second == {"role": "tool", "tool_call_id": ids[1], "content": "Error: no\npath"}
    assert user == {"role": "user", "content": "And now?"}


def test_pictures_of_tool_results_are_shown_by_the_user() -> None:
    picture = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
    }
    results = [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": [picture]},
        {
            "type": "tool_result",
            "tool_use_id": "toolu_2",
            "content": [{"type": "text", "text": "As seen."}, picture, picture],
        },
        {"type": "text", "text": "And now?"},
    ]
    first, second, user = translate_messages({"role": "user", "content": results})
    assert (first["role"], first["content"]) == ("tool", "The pictures follow.")
    assert second["tool_call_id"] != first["tool_call_id"]
    assert second["content"] == "As seen."
    assert [part.get("text", part["type"]) for part in user["content"]] == [
        *(f"Pictures of the tool result {first['tool_call_id']}:", "image_url"),
        *(f"Pictures of the tool result {second['tool_call_id']}:", "image_url", "image_url"),
        "And now?",
    ]


def test_a_tool_that_was_looked_up_is_named() -> None:
    reference = {"type": "tool_reference", "tool_name": "draw"}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [reference]}
    (message,) = translate_messages({"role": "user", "content": [result]})
    assert message["content"] == "The tool draw can be called now."


def test_an_answer_of_thoughts_alone_has_an_empty_text() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "x"}
    (message,) = translate_messages({"role": "assistant", "content": [thought]})
    assert message == {"role": "assistant", "content": ""}


def test_a_call_has_the_id_that_the_endpoint_gave_it_again() -> None:
    call_id = tool_ids.issue("answer", 0, "functions.f:0")
    call = {"type": "tool_use", "id": call_id, "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": call_id, "content": "done"}
    assistant, tool = translate_messages(
        {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}
    )
    assert assistant["tool_calls"][0]["id"] == tool["tool_call_id"] == "functions.f:0"


def test_gemini_gets_the_first_call_of_each_answer_signed_and_nobody_else_does() -> None:
    calls: list[dict[str, Any]] = [
        {"type": "tool_use", "id": id_, "name": "f", "input": {}} for id_ in ("a", "b")
    ]
    body = {
        "max_tokens": 50,
        "messages": [HELLO, {"role": "assistant", "content": calls}, HELLO],
    }
    for model, is_signed in (("google/Gemini-3-pro", True), ("gpt-x", False)):
        request = openai_request.translate(body, model=model, limit_field="max_tokens")
        sent = request["messages"][1]["tool_calls"]
        assert ["extra_content" in call for call in sent] == [is_signed, False]


@pytest.mark.parametrize("has_call", [True, False])
def test_thoughts_of_the_endpoint_go_back_in_their_field(has_call: bool) -> None:
    thought = {
        "type": "thinking",
        "thinking": "Hm.",
        "signature": thoughts.signature("reasoning_content"),
    }
    call = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    content = [thought, {**thought, "thinking": " So."}, *([call] if has_call else [])]
    (message,) = translate_messages({"role": "assistant", "content": content})
    assert message["reasoning_content"] == "Hm. So."


def test_models_that_want_thoughts_with_each_answer_get_them_also_for_those_of_others() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": thoughts.signature("reasoning")}
    answers = [{"role": "assistant", "content": content} for content in ("Hi", [thought])]
    body = {"max_tokens": 50, "messages": [HELLO, *answers, HELLO]}
    for model, is_filled in (("deepseek-v4", True), ("moonshot/Kimi-K2", True), ("gpt-x", False)):
        request = openai_request.translate(body, model=model, limit_field="max_tokens")
        user, bare, thoughtful, _ = request["messages"]
        assert "reasoning_content" not in {**user, **thoughtful}
        assert bool(bare.get("reasoning_content")) is is_filled
        assert thoughtful["reasoning"] == "Hm."


def test_a_tool_call_without_text_has_no_content() -> None:
    call = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    (message,) = translate_messages({"role": "assistant", "content": [call]})
    assert message["content"] is None


def test_images_are_passed_as_links() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "aGk="}
    blocks = [
        {"type": "text", "text": "Like this:"},
        {"type": "image", "source": source},
        {"type": "document", "source": {"type": "text", "data": "notes"}},
    ]
    (message,) = translate_messages({"role": "user", "content": blocks})
    assert message["content"] == [
        {"type": "text", "text": "Like this:"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "text", "text": "notes"},
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, {}),
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "write_file", "disable_parallel_tool_use": True},
            {
                "tool_choice": {"type": "function", "function": {"name": "write_file"}},
                "parallel_tool_calls": False,
            },
        ),
    ],
)
def test_tools_and_their_choice_are_translate(
    choice: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    request = translate(tools=[TOOL], **({"tool_choice": choice} if choice else {}))
    function = {
        "name": "write_file",
        "description": "Write it.",
        "parameters": TOOL["input_schema"],
    }
    assert request["tools"] == [{"type": "function", "function": function}]
    assert {
        name: request[name] for name in ("tool_choice", "parallel_tool_calls") if name in request
    } == expected


def test_an_output_format_is_translate() -> None:
    shape = {"type": "json_schema", "schema": {"type": "object"}}
    assert translate(output_config={"format": shape})["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
    }


PICTURE = {"type": "image", "source": {"type": "file", "file_id": "f"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": [PICTURE]}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "critic", "content": "no"}]},
        {"messages": [{"role": "assistant", "content": [PICTURE]}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "t", "content": [PICTURE]}],
                }
            ]
        },
        {"tools": [{"type": "bash_20250124", "name": "bash"}]},
        {"tools": [TOOL], "tool_choice": {"type": "never"}},
        {"tools": [{"name": "no schema"}]},
        {"messages": ["no message"]},
        {"stop_sequences": list("abcde")},
        {"output_config": {"format": {"type": "grammar"}}},
    ],
)
def test_a_feature_that_can_not_be_translated_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        translate(**fields)
    assert caught.value.code == "untranslatable"


@given(st.lists(st.text(), min_size=1))
def test_no_text_of_a_conversation_is_lost(words: list[str]) -> None:
    conversation = [
        {"role": ("user", "assistant")[index % 2], "content": [{"type": "text", "text": word}]}
        for index, word in enumerate(words)
    ]
    assert [message["content"] or "" for message in translate_messages(*conversation)] == words
