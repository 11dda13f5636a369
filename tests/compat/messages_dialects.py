"""More rows of providers that have the Messages API: proxies, and APIs that look like it."""

from __future__ import annotations

import gzip
import json
from typing import Any

from tests.compat.answers import (
    ERROR_EVENT,
    JSON_TYPE,
    MESSAGE,
    PING,
    RAW,
    STREAM,
    TEXT,
    Json,
    encode,
    frames,
    once,
    stream,
    unless,
    whole,
)
from tests.compat.cases import LOST, REFUSED, TWO_CALLS, Case, Outcome, next_one, row
from tests.fakes.llm.odd_provider import Reply

FRAMES = frames()
_LAST = b"".join(FRAMES[-1:])
WITHOUT_STOP = b"".join(FRAMES[:-1])
ODD = b'event: odd\ndata: {"type": "odd", "index": 0, "delta": {"text": "?"}}\n\n'
OVERLOADED = ERROR_EVENT + b"\n\n"
DONE = b"data: [DONE]\n\n"


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + encode({"type": kind, **fields}) + b"\n\n"


def _block(index: int, start: Json, *deltas: Json, ends: bool = True) -> bytes:
    return b"".join(
        (
            _event("content_block_start", index=index, content_block=start),
            *(_event("content_block_delta", index=index, delta=delta) for delta in deltas),
            _event("content_block_stop", index=index) if ends else b"",
        )
    )


def _call(index: int, number: int, **more: Any) -> bytes:
    start = {"type": "tool_use", "id": f"toolu_{number}", "name": "f", "input": {}, **more}
    pieces = ('{"n"', f": {number}}}")
    return _block(
        index, start, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
    )


def _message(*blocks: bytes, stop_reason: str = "tool_use") -> Reply:
    end = _event("message_delta", delta={"stop_reason": stop_reason}, usage={"output_tokens": 7})
    return stream(b"".join((FRAMES[0], *blocks, end, _LAST)))


def _stopping(reason: str) -> Case:
    raw = RAW.replace(b'"end_turn"', json.dumps(reason).encode())
    return row(f"`stop_reason` is `{reason}`", stream(raw), Outcome(stop_reason=reason))


def _with_usage(name: str, usage: object) -> Case:
    raw = RAW.replace(encode(MESSAGE["usage"]), encode(usage))
    return row(f"usage {name}", stream(raw))


def _with_ids(*ids: str) -> Json:
    """A request with calls of these names, and their results."""
    uses = [{"type": "tool_use", "id": id_, "name": "f", "input": {}} for id_ in ids]
    results = [{"type": "tool_result", "tool_use_id": id_, "content": "done"} for id_ in ids]
    return {
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": uses},
            {"role": "user", "content": results},
        ]
    }


_TEXT_BLOCK = _block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": TEXT})

EVENTS = (
    row(
        "events that nobody knows, at the beginning and between",
        stream(ODD + b"".join(frame + ODD for frame in FRAMES[:-1]) + _LAST),
    ),
    row(
        "events that nobody knows, then an error event",
        stream(ODD * 2 + OVERLOADED),
        next_one(529, "overloaded_error"),
    ),
    row("events that nobody knows, and nothing else", stream(ODD * 2), LOST),
    row("pings between all events", stream(b"".join(frame + PING for frame in FRAMES))),
    row("`message_stop` is missing", stream(WITHOUT_STOP)),
    row(
        "`message_stop` is missing, and the connection stays open",
        stream(WITHOUT_STOP, stays_open=True),
    ),
    row("`message_stop` is missing, and the connection breaks", stream(WITHOUT_STOP, is_cut=True)),
    row("`[DONE]` in place of `message_stop`", stream(WITHOUT_STOP + DONE)),
    row("`[DONE]` after `message_stop`", stream(RAW + DONE)),
    row(
        "ends in the midst of an answer, as if it were whole",
        stream(b"".join(FRAMES[:3])),
        Outcome(is_cut=True),
    ),
    row(
        "an error event in the midst of an answer",
        stream(b"".join(FRAMES[:3]) + OVERLOADED),
        Outcome(has_error=True),
    ),
    row(
        "the same, and the connection stays open",
        stream(b"".join(FRAMES[:3]) + OVERLOADED, stays_open=True),
        Outcome(has_error=True),
    ),
    row("a whole message as the only event", stream(b"data: " + encode(MESSAGE) + b"\n\n")),
    row(
        "the end of a block is missing",
        stream(b"".join(frame for frame in FRAMES if b"content_block_stop" not in frame)),
    ),
    row(
        "all blocks have index 0",
        _message(_TEXT_BLOCK, _call(0, 0), _call(0, 1)),
        Outcome(content=(TEXT, {"n": 0}, {"n": 1})),
    ),
    row(
        "the numbers of blocks are text",
        stream(RAW.replace(b'"index": 0', b'"index": "0"')),
    ),
    row(
        "all calls have the same id", _message(_call(0, 0, id="a"), _call(1, 1, id="a")), TWO_CALLS
    ),
    row(
        "blocks and deltas that nobody knows",
        _message(
            _block(0, {"type": "odd_block", "data": "?"}, {"type": "odd_delta", "data": "?"}),
            _block(
                1,
                {"type": "text", "text": ""},
                {"type": "text_delta", "text": TEXT},
                {"type": "citations_delta", "citation": {}},
            ),
            stop_reason="end_turn",
        ),
    ),
    row(
        "thoughts without a signature",
        _message(
            _block(
                0,
                {"type": "thinking", "thinking": ""},
                {"type": "thinking_delta", "thinking": "Hm."},
            ),
            _block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": TEXT}),
            stop_reason="end_turn",
        ),
        Outcome(content=("(Hm.)", TEXT)),
    ),
)

ENDS = tuple(
    _stopping(reason)
    for reason in (
        *("refusal", "pause_turn", "model_context_window_exceeded", "stop_sequence"),
        "something_new",
    )
)

USAGES = (
    _with_usage("with nulls", {"input_tokens": None, "output_tokens": None}),
    _with_usage("as text and with fractions", {"input_tokens": "11", "output_tokens": 7.5}),
    _with_usage("is a list", []),
    _with_usage("is `null`", None),
)

HEADS = (
    row("no content type", Reply(content_type="", pieces=[RAW])),
    row("a stream as `application/json`", Reply(content_type=JSON_TYPE, pieces=[RAW])),
    row(
        "not streamed: no content type",
        Reply(content_type="", pieces=[encode(MESSAGE)]),
        is_streamed=False,
    ),
    row(
        "not streamed: as `text/plain`",
        Reply(content_type="text/plain", pieces=[encode(MESSAGE)]),
        is_streamed=False,
    ),
    row(
        "an error that is compressed",
        Reply(
            status=400,
            content_type=JSON_TYPE,
            headers={"content-encoding": "gzip"},
            pieces=[
                gzip.compress(
                    encode(
                        {
                            "type": "error",
                            "error": {"type": "invalid_request_error", "message": "m"},
                        }
                    )
                )
            ],
        ),
        REFUSED,
    ),
    row(
        "an error as a text in place of the first event",
        stream(b'data: {"error": "m"}\n\n'),
        next_one(500, "api_error"),
    ),
    row(
        "an error event of another API, with its status as text",
        stream(b'data: {"error": {"message": "m", "code": "429"}}\n\n'),
        next_one(429, "rate_limit_error"),
    ),
    row(
        "429 with a time as `Retry-After`, then an answer",
        once(
            Reply(
                status=429,
                content_type=JSON_TYPE,
                headers={
                    "date": "Sun, 29 Nov 2026 16:00:00 GMT",
                    "retry-after": "Sun, 29 Nov 2026 16:00:01 GMT",
                },
                pieces=[
                    encode({"type": "error", "error": {"type": "rate_limit_error", "message": "m"}})
                ],
            ),
            STREAM,
        ),
        Outcome(asks=2),
    ),
)

REQUESTS = (
    row(
        "refuses ids of calls that have not its form: `functions.f:0`",
        unless("functions.f:0", whole({"error": {"message": "should match pattern"}}, 400), STREAM),
        asked=_with_ids("functions.f:0", "functions.f:1"),
    ),
    row(
        "refuses thoughts of other providers",
        unless("Hm.", whole({"error": {"message": "Invalid `signature`"}}, 400), STREAM),
        asked={
            "messages": [
                {"role": "user", "content": "Hello"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Hm.", "signature": "oai-reasoning"},
                        {"type": "text", "text": "Hello"},
                    ],
                },
                {"role": "user", "content": "Go on"},
            ]
        },
    ),
)

CASES = (*EVENTS, *ENDS, *USAGES, *HEADS, *REQUESTS)
