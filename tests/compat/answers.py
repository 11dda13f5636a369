"""Answers of providers as they are in the field. The table in `providers` is made of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.fakes.llm.odd_provider import Answers, Reply
from tests.fakes.llm.separators import SEPARATORS

Json = dict[str, Any]

TEXT = f"Hello{SEPARATORS} there"
JSON_TYPE = "application/json"
USAGE = {"input_tokens": 11, "output_tokens": 7}


def encode(document: object) -> bytes:
    """JSON as a server writes it that escapes only what it must."""
    return json.dumps(document, ensure_ascii=False).encode()


def always(reply: Reply) -> Answers:
    return lambda body, number: reply


def once(reply: Reply, then: Reply) -> Answers:
    return lambda body, number: then if number else reply


def unless(name: str, reply: Reply, then: Reply) -> Answers:
    """`reply` to a request in which this name occurs anywhere, and `then` to others."""
    return lambda body, number: reply if f'"{name}"' in json.dumps(body) else then


def whole(document: object, status: int = 200) -> Reply:
    return Reply(status=status, content_type=JSON_TYPE, pieces=[encode(document)])


def error(status: int, message: str, kind: str = "invalid_request_error") -> Reply:
    """An error in the shape of the Messages API."""
    return whole({"type": "error", "error": {"type": kind, "message": message}}, status)


def openai_error(status: int, message: str, **fields: object) -> Reply:
    return whole({"error": {"message": message, **fields}}, status)


def page(status: int = 200) -> Reply:
    return Reply(status=status, content_type="text/html", pieces=[b"<html>Bad gateway</html>"])


# The Messages API


def frames(text: str = TEXT) -> list[bytes]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    events: Sequence[Json] = [
        {"type": "message_start", "message": {**message, "usage": USAGE}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": USAGE},
        {"type": "message_stop"},
    ]
    return [
        f"event: {event['type']}\ndata: ".encode() + encode(event) + b"\n\n" for event in events
    ]


def stream(raw: bytes | None = None, **fields: Any) -> Reply:
    return Reply(pieces=frames() if raw is None else [raw], **fields)


STREAM = stream()
RAW = b"".join(frames())
RAW_WITHOUT_USAGE = RAW.replace(b', "usage": ' + encode(USAGE), b"")
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
ERROR_EVENT = b"event: error\ndata: " + encode(
    {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
)
COMPRESSED = stream(gzip.compress(RAW), headers={"content-encoding": "gzip"})
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": TEXT}],
    "stop_reason": "end_turn",
    "usage": USAGE,
}


# OpenAI's API


def chunk(finish: str | None = None, usage: Json | None = None, **delta: Any) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c1", "model": "gpt-x", "choices": [choice], "usage": usage}


def call(number: int, arguments: object = None, **fields: Any) -> Json:
    """A whole tool call, or a piece of one."""
    given = f'{{"n": {number}}}' if arguments is None else arguments
    return {"type": "function", "function": {"name": f"f{number}", "arguments": given}, **fields}


def piece(arguments: str, **fields: Any) -> Json:
    """A later piece of a tool call."""
    return {"function": {"arguments": arguments}, **fields}


def lines(chunks: Sequence[object], line_end: str = "\n") -> list[bytes]:
    return [b"data: " + encode(each) + 2 * line_end.encode() for each in chunks]


DONE = b"data: [DONE]\n\n"


def completions(*chunks: object, end: bytes = DONE, **fields: Any) -> Reply:
    return Reply(pieces=[*lines(chunks), end], **fields)


def calls(*deltas: Mapping[str, Any], finish: str = "tool_calls") -> Reply:
    """A stream with a chunk for each delta."""
    return completions(*(chunk(**delta) for delta in deltas), chunk(finish))


def completion(**message: Any) -> Json:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 11, "completion_tokens": 7}
    return {"id": "c1", "model": "gpt-x", "choices": [choice], "usage": usage}
