"""A whole message of the Messages API as the events of a stream. Pure.

The gateway needs it for endpoints that know no streams: they answer as a whole, though a client
asked for a stream and reads nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Json = dict[str, Any]

# By the type of a block: the field that a stream gives bit by bit, the delta for it, and the
# field's name there.
_GROWING = {
    "text": ("text", "text_delta", "text"),
    "thinking": ("thinking", "thinking_delta", "thinking"),
    "tool_use": ("input", "input_json_delta", "partial_json"),
}


def is_message(document: Mapping[str, Any]) -> bool:
    """Whether a decoded answer is a whole message."""
    content = document.get("content")
    return (
        document.get("type") == "message"
        and isinstance(content, list)
        and all(isinstance(block, dict) and isinstance(block.get("type"), str) for block in content)
    )


def events_of(message: Mapping[str, Any]) -> Iterator[Json]:
    """The events from which a client puts together this message (see `is_message`)."""
    usage = message.get("usage")
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(message["content"]):
        yield from _block_events(index, block)
    delta = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
    yield {"type": "message_delta", "delta": delta} | ({"usage": usage} if usage else {})
    yield {"type": "message_stop"}


def _block_events(index: int, block: Json) -> Iterator[Json]:
    """A block of a kind that we don't know begins with all that it has."""
    deltas: list[Json] = []
    start = dict(block)
    field, kind, name = _GROWING.get(block["type"], ("", "", ""))
    if field in block:
        is_json = kind == "input_json_delta"
        value = json.dumps(block[field]) if is_json else block[field]
        deltas.append({"type": kind, name: value})
        start[field] = {} if is_json else ""
    if block["type"] == "thinking" and "signature" in block:
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        start["signature"] = ""
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}
