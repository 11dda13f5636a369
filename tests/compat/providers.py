"""Provider behaviour and its outcome: the test and docs/compatibility.md read this one table."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.compat.answers import (
    COMPRESSED,
    DONE,
    ERROR_EVENT,
    MESSAGE,
    RAW,
    STREAM,
    TEXT,
    always,
    call,
    calls,
    chunk,
    completion,
    completions,
    error,
    lines,
    once,
    openai_error,
    page,
    stream,
    unless,
    whole,
)
from tests.fakes.llm.odd_provider import Answers, Reply


class Api(enum.StrEnum):
    """What the provider speaks."""

    MESSAGES = "Messages API"
    OPENAI = "OpenAI-compatible"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a client gets, and what is remembered. The default: the provider serves, asked once."""

    status: int = 200  # of the answer, if this provider alone is configured
    kind: str = ""  # the error's type
    code: str = ""  # the error's code, if it is one of ours
    is_next_asked: bool = False  # another provider, if there is one, serves the call
    asks: int = 1  # requests to this provider
    content: Sequence[Any] = (TEXT,)  # texts, and the inputs of tool calls
    left_out: Sequence[str] = ()  # fields that this call and later ones go without
    ready_says: str = ""  # what /ready and doctor say of the key
    is_billed: bool = False  # counts as what it may have cost, though no answer came
    is_cut: bool = False  # the answer breaks off

    def __str__(self) -> str:
        """As the table says it."""
        parts = ["served"]
        if self.is_cut:
            parts = ["breaks off; the agent asks again"]
        elif self.is_next_asked:
            error = f"{self.status} `{self.kind}`" + (f" (`{self.code}`)" if self.code else "")
            parts = [f"the next provider serves; without one: {error}"]
        if self.left_out:
            parts.append(f"asked again at once without {' and '.join(self.left_out)}")
        elif self.asks > 1:
            parts.append("after a retry")
        if self.ready_says:
            parts.append(f"`/ready`, `doctor` and the user read \u201c{self.ready_says}\u201d")
        if self.is_billed:
            parts.append("counts as what it may have cost")
        return "; ".join(parts)


def next_one(status: int, kind: str, code: str = "", **more: Any) -> Outcome:
    return Outcome(status=status, kind=kind, code=code, is_next_asked=True, **more)


def no_credit() -> Outcome:
    return next_one(402, "billing_error", "provider_no_credit", ready_says="has no credit")


def refused_key() -> Outcome:
    return next_one(401, "authentication_error", "provider_auth", ready_says="was refused")


SERVED = Outcome()
REFUSED = next_one(400, "invalid_request_error")
UNREACHABLE = next_one(502, "api_error", "provider_unavailable")
LOST = next_one(502, "api_error", "provider_unavailable", is_billed=True)
TWO_CALLS = Outcome(content=({"n": 0}, {"n": 1}))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row."""

    behaviour: str
    answers: Answers
    outcome: Outcome = SERVED
    api: Api = Api.MESSAGES
    asked: Mapping[str, Any] = field(default_factory=dict)  # fields of the request
    is_streamed: bool = True
    is_listening: bool = True


def _row(behaviour: str, answer: Reply | Answers, outcome: Outcome = SERVED, **more: Any) -> Case:
    answers = always(answer) if isinstance(answer, Reply) else answer
    return Case(behaviour=behaviour, answers=answers, outcome=outcome, **more)


def _openai(
    behaviour: str, answer: Reply | Answers, outcome: Outcome = SERVED, **more: Any
) -> Case:
    return _row(behaviour, answer, outcome, api=Api.OPENAI, **more)


_EAGER = {"tools": [{"name": "f", "input_schema": {}, "eager_input_streaming": True}]}
_CACHED = {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]}
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


_MESSAGES_CASES = (
    _row("a stream as in the reference", STREAM),
    _row("lines end with CRLF", stream(RAW.replace(b"\n", b"\r\n"))),
    _row("lines end with CR", stream(RAW.replace(b"\n", b"\r"))),
    _row("the text has U+2028, U+2029, U+0085 and U+000C as they are", STREAM),
    _row("comments, ids and retry times between the events", stream(b": hi\nretry: 5\n\n" + RAW)),
    _row("a byte order mark before the first event", stream(b"\xef\xbb\xbf" + RAW)),
    _row("no space after `data:`", stream(RAW.replace(b"data: ", b"data:"))),
    _row("a ping first", stream(b'event: ping\ndata: {"type": "ping"}\n\n' + RAW)),
    _row("an event comes in pieces", Reply(pieces=[RAW[:9], RAW[9:60], RAW[60:]])),
    _row("compressed, though not asked for", COMPRESSED),
    _row("an answer that isn't streamed", whole(MESSAGE), is_streamed=False),
    _row("an error event first", stream(ERROR_EVENT), next_one(529, "overloaded_error")),
    _row(
        "status 200 and an error as a whole",
        whole({"type": "error", "error": {"type": "rate_limit_error", "message": "m"}}),
        next_one(429, "rate_limit_error"),
    ),
    _row("a stream without any event", stream(b""), LOST),
    _row("status 200 and a page of HTML", page(), LOST),
    _row("status 200 and a page of HTML, not streamed", page(), LOST, is_streamed=False),
    _row("status 200 and an object of another API", whole({"object": "x"}), LOST),
    _row("status 200, not streamed, without content", whole({}), LOST, is_streamed=False),
    _row("an event that is no JSON", stream(b"data: {oops\n\n"), LOST),
    _row("hangs up without an answer", Reply(hangs_up=True), LOST),
    _row("says nothing for longer than `SPAWN_PROVIDER_SILENCE_S`", Reply(is_silent=True), LOST),
    _row("nobody listens", STREAM, UNREACHABLE, is_listening=False),
    _row(
        "breaks off in the midst of an answer",
        stream(RAW[:-40], is_cut=True),
        Outcome(is_cut=True),
    ),
    _row(
        "400: the credit balance is too low",
        error(400, "Your credit balance is too low to access the API."),
        no_credit(),
    ),
    _row(
        "400: the account's own limit is reached",
        error(400, "You have reached your specified API usage limits."),
        no_credit(),
    ),
    _row("402", error(402, "Payment required", "billing_error"), no_credit()),
    _row("401", error(401, "invalid x-api-key", "authentication_error"), refused_key()),
    _row("403", error(403, "not allowed", "permission_error"), refused_key()),
    _row("400: the API key is not valid", error(400, "API key not valid."), refused_key()),
    _row(
        "404: unknown model",
        error(404, "model: m", "not_found_error"),
        next_one(404, "not_found_error"),
    ),
    _row("400: the prompt is too long", error(400, "prompt is too long: 9 > 8"), REFUSED),
    _row(
        "413: the request is too large",
        error(413, "too large", "request_too_large"),
        next_one(413, "request_too_large"),
    ),
    _row(
        "400: `eager_input_streaming` is not permitted",
        unless("eager_input_streaming", _STRICT, STREAM),
        Outcome(asks=2, left_out=("eager_input_streaming",)),
        asked=_EAGER,
    ),
    _row(
        "422 with a list of details: `eager_input_streaming` is not permitted",
        unless("eager_input_streaming", _DETAIL, STREAM),
        Outcome(asks=2, left_out=("eager_input_streaming",)),
        asked=_EAGER,
    ),
    _row(
        "400: `cache_control` is unknown",
        unless("cache_control", error(400, 'Unknown name "cache_control" at system[0]'), STREAM),
        Outcome(asks=2, left_out=("cache_control",)),
        asked=_CACHED,
    ),
    _row(
        "400: thoughts that are sent back are unknown",
        unless(
            "thinking",
            error(400, "messages.1.content.0: Input tag 'thinking' does not match expected tags"),
            STREAM,
        ),
        Outcome(asks=2, left_out=("thinking",)),
        asked=_THOUGHT,
    ),
    _row(
        "400 to two fields, one after the other",
        _both_refused,
        Outcome(asks=3, left_out=("eager_input_streaming", "cache_control")),
        asked={**_EAGER, **_CACHED},
    ),
    _row(
        "400: a field is unknown that changes the answer",
        error(400, f"temperature: {_EXTRA}"),
        REFUSED,
        asked={"temperature": 0.5},
    ),
    _row(
        "400: a wrong value in a field that could be left out",
        error(400, f"system.0.cache_control.ttl: {_EXTRA}"),
        REFUSED,
        asked=_CACHED,
    ),
    _row(
        "429 once, then an answer",
        once(error(429, "slow down", "rate_limit_error"), STREAM),
        Outcome(asks=2),
    ),
    _row(
        "429 for longer than we try",
        error(429, "slow down", "rate_limit_error"),
        next_one(429, "rate_limit_error"),
    ),
    _row("529", error(529, "Overloaded", "overloaded_error"), next_one(529, "overloaded_error")),
    _row("500", error(500, "m", "api_error"), next_one(500, "api_error")),
    _row("502 with a page of HTML", page(502), next_one(502, "api_error")),
    _row(
        "504: what stands before the model has given it up",
        page(504),
        next_one(504, "timeout_error", is_billed=True),
    ),
    _row(
        "an error in a shape of its own",
        whole({"message": "model is loading"}, 503),
        next_one(503, "overloaded_error"),
    ),
)
_OPENAI_CASES = (
    _openai("a stream as in the reference", completions(chunk(content=TEXT), chunk("stop"))),
    _openai(
        "comments, and lines that end with CRLF",
        Reply(pieces=[b": hi\r\n\r\n", *lines([chunk(content=TEXT), chunk("stop")], "\r\n"), DONE]),
    ),
    _openai("no `[DONE]` at the end", completions(chunk(content=TEXT), chunk("stop"), end=b"")),
    _openai("`[DONE]` without a reason to stop", completions(chunk(content=TEXT))),
    _openai(
        "the connection stays open after `[DONE]`",
        completions(chunk(content=TEXT), chunk("stop"), stays_open=True),
    ),
    _openai(
        "the last empty line is missing",
        completions(chunk(content=TEXT), end=lines([chunk("stop")])[0].strip()),
    ),
    _openai(
        "content as a list of parts",
        completions(chunk(content=[{"type": "text", "text": TEXT}]), chunk("stop")),
    ),
    _openai(
        "two whole calls in one chunk, both with index 0",
        calls({"tool_calls": [call(0, index=0, id="a"), call(1, index=0, id="b")]}),
        TWO_CALLS,
    ),
    _openai(
        "two whole calls in one chunk, without an index",
        calls({"tool_calls": [call(0, id="a"), call(1, id="b")]}),
        TWO_CALLS,
    ),
    _openai(
        "two whole calls without index and id",
        calls({"tool_calls": [call(0), call(1)]}),
        TWO_CALLS,
    ),
    _openai(
        "arguments as objects",
        calls({"tool_calls": [call(0, {"n": 0}, id="a"), call(1, {"n": 1}, id="b")]}),
        TWO_CALLS,
    ),
    _openai(
        "empty ids and names on later pieces",
        calls(
            {"tool_calls": [call(0, "", index=0, id="a")]},
            {"tool_calls": [{"index": 0, "id": "", "function": {"arguments": '{"n": 0}'}}]},
            {"tool_calls": [call(1, "", index=1, id="b")]},
            {"tool_calls": [{"id": None, "function": {"name": "", "arguments": '{"n": 1}'}}]},
        ),
        TWO_CALLS,
    ),
    _openai(
        "`stop` as the reason after calls",
        calls({"tool_calls": [call(0, id="a"), call(1, id="b")]}, finish="stop"),
        TWO_CALLS,
    ),
    _openai("an answer that isn't streamed", whole(completion(content=TEXT)), is_streamed=False),
    _openai(
        "not streamed: parts, and arguments as objects",
        whole(
            completion(
                content=[{"type": "text", "text": TEXT}], tool_calls=[call(0, {"n": 0}, id=None)]
            )
        ),
        Outcome(content=(TEXT, {"n": 0})),
        is_streamed=False,
    ),
    _openai(
        "an error instead of the first chunk",
        completions({"error": {"message": "m", "code": 429}}),
        next_one(429, "rate_limit_error"),
    ),
    _openai(
        "status 200 and an error, not streamed",
        openai_error(200, "m", code=503),
        next_one(503, "overloaded_error"),
        is_streamed=False,
    ),
    _openai("a chunk whose content is a number", completions(chunk(content={"n": 5})), LOST),
    _openai("a chunk that is no JSON", Reply(pieces=[b"data: {oops\n\n"]), LOST),
    _openai("status 200 and a page of HTML", page(), LOST),
    _openai("status 200 without choices, not streamed", whole({}), LOST, is_streamed=False),
    _openai(
        "an error in the midst of an answer",
        completions(chunk(content=TEXT), {"error": {"message": "m"}}),
        Outcome(is_cut=True),
    ),
    _openai(
        "429: `insufficient_quota`",
        openai_error(429, "You exceeded your current quota", code="insufficient_quota"),
        no_credit(),
    ),
    _openai(
        "404: unknown model",
        openai_error(404, "no such model", code="model_not_found"),
        next_one(404, "not_found_error"),
    ),
    _openai("an error as a text", whole({"error": "bad request"}, 400), REFUSED),
    _openai(
        "400: `stream_options` is unknown",
        unless(
            "stream_options",
            openai_error(400, "Unknown parameter: 'stream_options'."),
            completions(chunk(content=TEXT), chunk("stop")),
        ),
        Outcome(asks=2, left_out=("stream_options",)),
    ),
)
CASES = (*_MESSAGES_CASES, *_OPENAI_CASES)

TITLE = "Providers"
INTRODUCTION = (
    "What a provider does, and what comes of it. \u201cThe next provider\u201d is the next one that"
    " is configured:\nAnthropic's API, the fallback (`SPAWN_FALLBACK_API_KEY`), an"
    " OpenAI-compatible endpoint (`SPAWN_OPENAI_BASE_URL`)."
)
HEAD = ("Provider", "It does this", "Outcome")


def rows() -> list[Sequence[str]]:
    """The table, as docs/compatibility.md has it."""
    return [(case.api.value, case.behaviour, str(case.outcome)) for case in CASES]
