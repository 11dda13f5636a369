"""Rows of providers that have the Messages API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.compat.answers import (
    COMPRESSED,
    ERROR_EVENT,
    MESSAGE,
    PING,
    RAW,
    RAW_WITHOUT_USAGE,
    STREAM,
    encode,
    error,
    frames,
    once,
    page,
    stream,
    unless,
    whole,
)
from tests.compat.cases import (
    LOST,
    REFUSED,
    UNREACHABLE,
    Outcome,
    next_one,
    no_credit,
    refused_key,
    row,
)
from tests.fakes.llm.odd_provider import Reply

_EAGER = {"tools": [{"name": "f", "input_schema": {}, "eager_input_streaming": True}]}
_CACHED = {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]}
_KEPT = {
    "messages": [
        {
            "role": "user",
            "content": [
                {
                    "type": "text",
                    "text": "Hello",
                    "cache_control": {"type": "ephemeral", "ttl": "1h", "scope": "global"},
                }
            ],
        }
    ]
}
_THOUGHT = {
    "messages": [
        {"role": "user", "content": "Hello"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "text", "text": "Hello"},
            ],
        },
        {"role": "user", "content": "Go on"},
    ]
}
_EXTRA = "Extra inputs are not permitted"
_STRICT = error(400, f"tools.0.custom.eager_input_streaming: {_EXTRA}")
_DETAIL = whole(
    {"detail": [{"loc": ["body", "tools", 0, "eager_input_streaming"], "msg": _EXTRA}]}, 422
)


def _both_refused(body: Mapping[str, Any], _: int) -> Reply:
    for name in ("eager_input_streaming", "cache_control"):
        if name in str(body):
            return error(400, f'json: unknown field "{name}"')
    return STREAM


CASES = (
    row("a stream as in the reference", STREAM),
    row("lines end with CRLF", stream(RAW.replace(b"\n", b"\r\n"))),
    row("lines end with CR", stream(RAW.replace(b"\n", b"\r"))),
    row("the text has U+2028, U+2029, U+0085 and U+000C as they are", STREAM),
    row("comments, ids and retry times between the events", stream(b": hi\nretry: 5\n\n" + RAW)),
    row("a byte order mark before the first event", stream(b"\xef\xbb\xbf" + RAW)),
    row("no space after `data:`", stream(RAW.replace(b"data: ", b"data:"))),
    row("a ping first", stream(PING + RAW)),
    row(
        "pings, then an error event",
        stream(2 * PING + ERROR_EVENT),
        next_one(529, "overloaded_error"),
    ),
    row("pings, and nothing else", stream(2 * PING), LOST),
    row("the connection stays open after `message_stop`", stream(RAW, stays_open=True)),
    row("the connection breaks after `message_stop`", stream(RAW, is_cut=True)),
    row("an event comes in pieces", Reply(pieces=[RAW[:9], RAW[9:60], RAW[60:]])),
    row("compressed, though not asked for", COMPRESSED),
    row("an answer that isn't streamed", whole(MESSAGE), is_streamed=False),
    row("`stream` is ignored: the answer comes as a whole", whole(MESSAGE)),
    row("the same, as a stream of nothing else", stream(encode(MESSAGE))),
    row("no usage is reported", stream(RAW_WITHOUT_USAGE)),
    row("an error event first", stream(ERROR_EVENT), next_one(529, "overloaded_error")),
    row(
        "status 200 and an error as a whole",
        whole({"type": "error", "error": {"type": "rate_limit_error", "message": "m"}}),
        next_one(429, "rate_limit_error"),
    ),
    row("a stream without any event", stream(b""), LOST),
    row("status 200 and a page of HTML", page(), LOST),
    row("status 200 and a page of HTML, not streamed", page(), LOST, is_streamed=False),
    row("status 200 and an object of another API", whole({"object": "x"}), LOST),
    row("status 200, not streamed, without content", whole({}), LOST, is_streamed=False),
    row("an event that is no JSON", stream(b"data: {oops\n\n"), LOST),
    row("hangs up without an answer", Reply(hangs_up=True), LOST),
    row("says nothing for longer than `SPAWN_PROVIDER_SILENCE_S`", Reply(is_silent=True), LOST),
    row("nobody listens", STREAM, UNREACHABLE, is_listening=False),
    row(
        "breaks off in the midst of an answer",
        stream(b"".join(frames()[:3]), is_cut=True),
        Outcome(is_cut=True),
    ),
    row(
        "400: the credit balance is too low",
        error(400, "Your credit balance is too low to access the API."),
        no_credit(),
    ),
    row(
        "400: the account's own limit is reached",
        error(400, "You have reached your specified API usage limits."),
        no_credit(),
    ),
    row("402", error(402, "Payment required", "billing_error"), no_credit()),
    row("401", error(401, "invalid x-api-key", "authentication_error"), refused_key()),
    row("403", error(403, "not allowed", "permission_error"), refused_key()),
    row("400: the API key is not valid", error(400, "API key not valid."), refused_key()),
    row(
        "404: unknown model",
        error(404, "model: m", "not_found_error"),
        next_one(404, "not_found_error"),
    ),
    row(
        "308: it has moved",
        Reply(status=308, headers={"location": "https://example.com/"}),
        next_one(404, "not_found_error"),
    ),
    row("400: the prompt is too long", error(400, "prompt is too long: 9 > 8"), REFUSED),
    row(
        "413: the request is too large",
        error(413, "too large", "request_too_large"),
        next_one(413, "request_too_large"),
    ),
    row(
        "400: `eager_input_streaming` is not permitted",
        unless("eager_input_streaming", _STRICT, STREAM),
        Outcome(asks=2, left_out=("eager_input_streaming",)),
        asked=_EAGER,
    ),
    row(
        "422 with a list of details: `eager_input_streaming` is not permitted",
        unless("eager_input_streaming", _DETAIL, STREAM),
        Outcome(asks=2, left_out=("eager_input_streaming",)),
        asked=_EAGER,
    ),
    row(
        "400: `cache_control` is unknown",
        unless("cache_control", error(400, 'Unknown name "cache_control" at system[0]'), STREAM),
        Outcome(asks=2, left_out=("cache_control",)),
        asked=_CACHED,
    ),
    row(
        "422: `cache_control` is not supported by the model",
        unless("cache_control", error(422, "This model does not support cache_control"), STREAM),
        Outcome(asks=2, left_out=("cache_control",)),
        asked=_CACHED,
    ),
    *(
        row(
            f"400: `{part}` in `cache_control` is not permitted",
            unless(
                part,
                error(400, f"messages.0.content.0.text.cache_control.ephemeral.{part}: {_EXTRA}"),
                STREAM,
            ),
            Outcome(asks=2, left_out=(part,)),
            asked=_KEPT,
        )
        for part in ("ttl", "scope")
    ),
    row(
        "400: thoughts that are sent back are unknown",
        unless(
            "thinking",
            error(400, "messages.1.content.0: Input tag 'thinking' does not match expected tags"),
            STREAM,
        ),
        Outcome(asks=2, left_out=("thinking",)),
        asked=_THOUGHT,
    ),
    row(
        "400 to two fields, one after the other",
        _both_refused,
        Outcome(asks=3, left_out=("eager_input_streaming", "cache_control")),
        asked={**_EAGER, **_CACHED},
    ),
    row(
        "400: `output_config` with an effort is unknown",
        unless("output_config", error(400, f"output_config: {_EXTRA}"), STREAM),
        Outcome(asks=2, left_out=("output_config",)),
        asked={"output_config": {"effort": "medium"}},
    ),
    row(
        "400: `output_config` with a format is unknown",
        error(400, f"output_config: {_EXTRA}"),
        REFUSED,
        asked={"output_config": {"effort": "medium", "format": {"type": "json_schema"}}},
    ),
    row(
        "400: a field is unknown that changes the answer",
        error(400, f"temperature: {_EXTRA}"),
        REFUSED,
        asked={"temperature": 0.5},
    ),
    row(
        "400: a wrong value in a field that could be left out",
        error(400, f"system.0.cache_control.ttl: {_EXTRA}"),
        REFUSED,
        asked=_CACHED,
    ),
    row(
        "429 once, then an answer",
        once(error(429, "slow down", "rate_limit_error"), STREAM),
        Outcome(asks=2),
    ),
    row(
        "429 for longer than we try",
        error(429, "slow down", "rate_limit_error"),
        next_one(429, "rate_limit_error"),
    ),
    row("529", error(529, "Overloaded", "overloaded_error"), next_one(529, "overloaded_error")),
    row("500", error(500, "m", "api_error"), next_one(500, "api_error")),
    row("502 with a page of HTML", page(502), next_one(502, "api_error")),
    row(
        "504: what stands before the model has given it up",
        page(504),
        next_one(504, "timeout_error", is_billed=True),
    ),
    row(
        "an error in a shape of its own",
        whole({"message": "model is loading"}, 503),
        next_one(503, "overloaded_error"),
    ),
)
