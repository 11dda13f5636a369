"""The messages and events that a Messages API sends, built from content blocks. Pure.

`server.py` and the tests' faulty servers call it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHARS_PER_TOKEN = 4  # a rough but repeatable count, for usage and for max_tokens
PIECE_CHARS = 24  # per delta; small, so that words and JSON escapes are split across deltas
SIGNATURE = "RmFrZSBzaWduYXR1cmU="  # clients only send it back
DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A content block before it is split into deltas."""

    kind: str  # text, thinking or tool_use
    payload: str  # the text; for tool_use the input as JSON
    tool: str = ""  # for tool_use: the tool's name
    finished: bool = True  # False: the stream never sends the end of the block


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The content of one answer, and the reason why it ends."""

    blocks: Sequence[Block]
    stop_reason: str
    stop_details: Mapping[str, str | None] | None = None


def message(body: Json, reply: Reply, usage: Json) -> Json:
    """A complete message: the answer to a request that doesn't stream."""
    return {
        "id": new_id("msg"),
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [_content_block(block) for block in reply.blocks],
        "stop_reason": reply.stop_reason,
        "stop_sequence": None,
        "stop_details": reply.stop_details,
        "usage": usage,
    }


def events(body: Json, reply: Reply, usage: Json) -> Iterator[Json]:
    """The same message as the events of a stream."""
    whole = message(body, reply, usage)
    end = {key: whole[key] for key in ("stop_reason", "stop_sequence", "stop_details")}
    start = whole | dict.fromkeys(end) | {"content": []}
    yield {"type": "message_start", "message": start | {"usage": usage | {"output_tokens": 1}}}
    for index, block in enumerate(reply.blocks):
        yield {"type": "content_block_start", "index": index, "content_block": _empty_block(block)}
        if index == 0:
            yield {"type": "ping"}
        for delta in _deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        if block.finished:
            yield {"type": "content_block_stop", "index": index}
    counts = {key: count for key, count in usage.items() if key.endswith("_tokens")}
    yield {"type": "message_delta", "delta": end, "usage": counts}
    yield {"type": "message_stop"}


def error(kind: str, text: str, request_id: str, *, code: str = "") -> Json:
    details = {"type": kind, "message": text} | ({"code": code} if code else {})
    return {"type": "error", "error": details, "request_id": request_id}


def frame(event: Json) -> bytes:
    """One server-sent event."""
    return f"event: {event['type']}\ndata: ".encode() + to_json(event) + b"\n\n"


def to_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def headers(request_id: str, content_type: str) -> dict[str, str]:
    return {"request-id": request_id, "content-type": content_type, "cache-control": "no-cache"}


def new_id(prefix: str) -> str:
    return f"{prefix}_01{uuid.uuid4().hex[:22]}"


def _content_block(block: Block) -> Json:
    content = _empty_block(block)
    if block.kind == "tool_use":
        try:
            content["input"] = json.loads(block.payload)
        except ValueError:  # cut off or malformed: there is no object
            content["input"] = {}
    else:
        content[block.kind] = block.payload
    if block.kind == "thinking":
        content["signature"] = SIGNATURE
    return content


def _deltas(block: Block) -> Iterator[Json]:
    kind, field = DELTAS[block.kind]
    if block.kind == "tool_use":
        yield {"type": kind, field: ""}  # the real service starts each input with an empty delta
    for start in range(0, len(block.payload), PIECE_CHARS):
        yield {"type": kind, field: block.payload[start : start + PIECE_CHARS]}
    if block.kind == "thinking":
        yield {"type": "signature_delta", "signature": SIGNATURE}


def _empty_block(block: Block) -> Json:
    if block.kind == "tool_use":
        return {
            "type": "tool_use",
            "id": new_id("toolu"),
            "name": block.tool,
            "input": {},
            "caller": {"type": "direct"},
        }
    signature = {"signature": ""} if block.kind == "thinking" else {}
    return {"type": block.kind, block.kind: "", **signature}
