"""A whole message as a stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.services.llm import whole_message

Json = dict[str, Any]

MESSAGE: Json = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "eA=="},
        {"type": "text", "text": "Now."},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": ["b"]}},
        {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}


def assemble(events: list[Json]) -> Json:
    """What a client puts together."""
    message = dict(events[0]["message"])
    content: list[Json] = []
    for event in events[1:]:
        if event["type"] == "content_block_start":
            assert event["index"] == len(content)
            content.append({**event["content_block"], "json": ""})
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(content) - 1
            delta = event["delta"]
            if delta["type"] == "input_json_delta":
                content[-1]["json"] += delta["partial_json"]
            else:
                name = delta["type"].removesuffix("_delta")
                content[-1][name] += delta[name]
        elif event["type"] == "message_delta":
            message |= event["delta"]
            message["usage"] = event["usage"]
    for block in content:
        arguments = block.pop("json")
        if block["type"] == "tool_use":
            assert block["input"] == {}
            block["input"] = json.loads(arguments)
    return {**message, "content": content}


def test_a_client_puts_the_same_message_together() -> None:
    events = list(whole_message.events_of(MESSAGE))
    assert assemble(events) == MESSAGE
    assert (events[0]["message"]["stop_reason"], events[0]["message"]["content"]) == (None, [])
    assert (events[0]["type"], events[-1]) == ("message_start", {"type": "message_stop"})


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"type": "message"},
        {"type": "message", "content": "Hi"},
        {"type": "message", "content": [5]},
        {"type": "message", "content": [{"type": []}]},
        {"type": "error", "content": []},
    ],
    ids=str,
)
def test_what_is_no_message_is_told(document: Json) -> None:
    assert not whole_message.is_message(document)


def test_odd_fields_of_a_block_are_passed_on() -> None:
    block = {"type": "text", "text": None, "citations": [5]}
    odd = {"type": "message", "content": [block, {"type": "text"}, {"type": "other", "a": 1}]}
    assert whole_message.is_message(odd)
    starts = [
        event["content_block"]
        for event in whole_message.events_of(odd)
        if event["type"] == "content_block_start"
    ]
    assert starts == [
        {"type": "text", "text": "", "citations": [5]},
        {"type": "text"},
        {"type": "other", "a": 1},
    ]
