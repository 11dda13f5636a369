"""Answers of an OpenAI-compatible endpoint, and what a client makes of their translation."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from orchestrator.domain.llm import tool_ids
from orchestrator.domain.llm.pricing import TokenCounts
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
    translator = StreamTranslator(ESTIMATE, "ours")
    fed = [event for chunk in chunks for event in translator.feed(chunk)]
    return fed + list(translator.finish(is_done=False))


def completion(finish: str = "stop", usage: Json | None = USAGE, **message: Any) -> Json:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"id": "c1", "model": "gpt-x", "choices": [choice], "usage": usage}


def issued(number: int, given_id: str) -> str:
    return tool_ids.issue("ours", number, given_id)


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
            elif delta["type"] == "thinking_delta":
                content[-1]["thinking"] += delta["thinking"]
            elif delta["type"] == "signature_delta":
                content[-1]["signature"] = delta["signature"]
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


def whole_call(number: int, **fields: Any) -> Json:
    function = {"name": f"f{number}", "arguments": f'{{"n": {number}}}'}
    return {"type": "function", "function": function, **fields}


def pieces(*calls: Json) -> list[Json]:
    """A chunk for each piece of a call."""
    return [chunk(tool_calls=[piece]) for piece in calls]


def piece(name: str | None, arguments: object, **fields: Any) -> Json:
    return {**fields, "function": {"name": name, "arguments": arguments}}


arguments = st.dictionaries(st.text(), st.text() | st.integers())
