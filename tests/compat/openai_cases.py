"""Rows of providers that have an API like OpenAI's."""

from __future__ import annotations

from tests.compat.answers import (
    DONE,
    JSON_TYPE,
    TEXT,
    Json,
    call,
    calls,
    chunk,
    completion,
    completions,
    encode,
    lines,
    openai_error,
    page,
    piece,
    unless,
    whole,
)
from tests.compat.cases import (
    LOST,
    REFUSED,
    TWO_CALLS,
    Case,
    Outcome,
    next_one,
    no_credit,
    openai,
    refused_key,
)
from tests.fakes.llm.odd_provider import Reply


def _ending(reason: object, stop_reason: str, shown: str = "") -> Case:
    return openai(
        f"the reason to stop is {shown or f'`{reason}`'}",
        completions(chunk(reason, content=TEXT)),  # type: ignore[arg-type]  # odd ones too
        Outcome(stop_reason=stop_reason),
    )


def _with_usage(name: str, usage: object, **place: object) -> Case:
    last: Json = {"choices": [], "usage": usage, **place}
    return openai(f"usage {name}", completions(chunk(content=TEXT), chunk("stop"), last, last))


ENDS = (
    _ending("length", "max_tokens"),
    _ending("length_limit", "max_tokens"),
    _ending("MAX_TOKENS", "max_tokens"),
    _ending("content_filter", "refusal"),
    _ending("SAFETY", "refusal"),
    _ending("eos", "end_turn"),
    _ending("eos_token", "end_turn"),
    _ending("end_turn", "end_turn"),
    _ending("STOP", "end_turn"),
    _ending("tool_calls", "end_turn", "`tool_calls`, after none"),
    _ending("something_new", "end_turn", "one that nobody knows"),
    _ending(1, "end_turn", "a number"),
    openai(
        "the reason to stop is `null` as text, until `[DONE]`",
        completions(chunk("null", content=TEXT)),
        Outcome(stop_reason="end_turn"),
    ),
    *(
        openai(
            f"the reason to stop after a call is `{reason}`",
            calls({"tool_calls": [call(0, id="a")]}, finish=reason),
            Outcome(content=({"n": 0},), stop_reason="tool_use"),
        )
        for reason in ("tool_call", "function_call", "TOOL_CALLS", "eos")
    ),
    openai(
        "a reason to stop on every chunk",
        completions(chunk("stop", content=TEXT[:4]), chunk("stop", content=TEXT[4:])),
    ),
    openai(
        "the reason to stop is `error`, in the midst of an answer",
        completions(chunk(content=TEXT), chunk("error")),
        Outcome(is_cut=True),
    ),
    openai("the reason to stop is `abort`, and there is nothing else", calls(finish="abort"), LOST),
)

USAGES = (
    _with_usage("with nulls", {"prompt_tokens": None, "completion_tokens": None}),
    _with_usage("as text and with fractions", {"prompt_tokens": "11", "completion_tokens": 7.0}),
    _with_usage("as a total alone", {"total_tokens": 18}),
    _with_usage("is a list", []),
    _with_usage("in the choice", None, choices=[{"usage": {"prompt_tokens": 11}}]),
    _with_usage("in `x_groq`", None, x_groq={"usage": {"prompt_tokens": 11}}),
)

CASES = (
    openai("a stream as in the reference", completions(chunk(content=TEXT), chunk("stop"))),
    openai(
        "comments, and lines that end with CRLF",
        Reply(pieces=[b": hi\r\n\r\n", *lines([chunk(content=TEXT), chunk("stop")], "\r\n"), DONE]),
    ),
    openai(
        "chunks without choices, with null for content and calls, and with thoughts of its own",
        completions(
            {**chunk(), "choices": []},
            chunk(role="assistant", content=None, tool_calls=None),
            chunk(reasoning_content="Hm.", content=""),
            chunk(content=TEXT),
            {**chunk("stop"), "choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]},
        ),
        Outcome(content=("(Hm.)", TEXT)),
    ),
    openai("no `[DONE]` at the end", completions(chunk(content=TEXT), chunk("stop"), end=b"")),
    openai("`[DONE]` without a reason to stop", completions(chunk(content=TEXT))),
    openai(
        "the connection stays open after the reason to stop and the usage, without `[DONE]`",
        completions(
            chunk(content=TEXT),
            chunk("stop"),
            chunk(usage={"prompt_tokens": 11}),
            end=b"",
            stays_open=True,
        ),
    ),
    openai(
        "the connection breaks after the reason to stop",
        completions(chunk(content=TEXT), chunk("stop"), end=b"", is_cut=True),
    ),
    openai(
        "the connection stays open after `[DONE]`",
        completions(chunk(content=TEXT), chunk("stop"), stays_open=True),
    ),
    openai(
        "the last empty line is missing",
        completions(chunk(content=TEXT), end=lines([chunk("stop")])[0].strip()),
    ),
    openai(
        "content as a list of parts",
        completions(chunk(content=[{"type": "text", "text": TEXT}]), chunk("stop")),
    ),
    openai(
        "two whole calls in one chunk, both with index 0",
        calls({"tool_calls": [call(0, index=0, id="a"), call(1, index=0, id="b")]}),
        TWO_CALLS,
    ),
    openai(
        "two whole calls in one chunk, without an index",
        calls({"tool_calls": [call(0, id="a"), call(1, id="b")]}),
        TWO_CALLS,
    ),
    openai(
        "two whole calls without index and id",
        calls({"tool_calls": [call(0), call(1)]}),
        TWO_CALLS,
    ),
    openai(
        "the pieces of two calls in turn",
        calls(
            {"tool_calls": [call(0, "", index=0, id="a"), call(1, "", index=1, id="b")]},
            *(
                {"tool_calls": [piece(text, index=index)]}
                for text, index in (('{"n"', 0), ('{"n"', 1), (": 0}", 0), (": 1}", 1))
            ),
        ),
        TWO_CALLS,
    ),
    openai(
        "text between the pieces of a call",
        calls(
            {"tool_calls": [call(0, '{"n"', index=0, id="a")]},
            {"content": TEXT},
            {"tool_calls": [piece(": 0}", index=0)]},
        ),
        Outcome(content=({"n": 0}, TEXT)),
    ),
    openai(
        "all calls have the same id",
        calls({"tool_calls": [call(0, index=0, id="a"), call(1, index=1, id="a")]}),
        TWO_CALLS,
    ),
    openai(
        "each piece of a call has another id",
        calls(
            {"tool_calls": [call(0, '{"n"', index=0, id="a")]},
            {"tool_calls": [piece(": 0}", index=0, id="b")]},
            {"tool_calls": [call(1, index=1, id="c")]},
        ),
        TWO_CALLS,
    ),
    openai(
        "arguments as objects",
        calls({"tool_calls": [call(0, {"n": 0}, id="a"), call(1, {"n": 1}, id="b")]}),
        TWO_CALLS,
    ),
    openai(
        "empty ids and names on later pieces",
        calls(
            {"tool_calls": [call(0, "", index=0, id="a")]},
            {"tool_calls": [{"index": 0, "id": "", "function": {"arguments": '{"n": 0}'}}]},
            {"tool_calls": [call(1, "", index=1, id="b")]},
            {"tool_calls": [{"id": None, "function": {"name": "", "arguments": '{"n": 1}'}}]},
        ),
        TWO_CALLS,
    ),
    openai(
        "`stop` as the reason after calls",
        calls({"tool_calls": [call(0, id="a"), call(1, id="b")]}, finish="stop"),
        TWO_CALLS,
    ),
    openai(
        "`stream` is ignored: the answer comes as a whole",
        whole(completion(content=TEXT, tool_calls=[call(0, id="a"), call(1, id="b")])),
        Outcome(content=(TEXT, {"n": 0}, {"n": 1})),
    ),
    openai(
        "`stream` is ignored: blanks, then the answer as a whole, in pieces",
        Reply(
            content_type=JSON_TYPE,
            pieces=[b"  \n", b"\n", *(bytes([byte]) for byte in encode(completion(content=TEXT)))],
        ),
    ),
    openai(
        "`stream` is ignored, and status 200 is an error",
        openai_error(200, "m", code=429),
        next_one(429, "rate_limit_error"),
    ),
    openai("`stream` is ignored: a whole answer without choices", whole({}), LOST),
    openai("an answer that isn't streamed", whole(completion(content=TEXT)), is_streamed=False),
    openai(
        "not streamed: parts, and arguments as objects",
        whole(
            completion(
                content=[{"type": "text", "text": TEXT}], tool_calls=[call(0, {"n": 0}, id=None)]
            )
        ),
        Outcome(content=(TEXT, {"n": 0})),
        is_streamed=False,
    ),
    openai(
        "an error instead of the first chunk",
        completions({"error": {"message": "m", "code": 429}}),
        next_one(429, "rate_limit_error"),
    ),
    openai(
        "status 200 and an error, not streamed",
        openai_error(200, "m", code=503),
        next_one(503, "overloaded_error"),
        is_streamed=False,
    ),
    openai("a chunk whose content is a number", completions(chunk(content={"n": 5})), LOST),
    openai("a chunk that is no JSON", Reply(pieces=[b"data: {oops\n\n"]), LOST),
    openai("status 200 and a page of HTML", page(), LOST),
    openai("status 200 without choices, not streamed", whole({}), LOST, is_streamed=False),
    openai(
        "an error in the midst of an answer",
        completions(chunk(content=TEXT), {"error": {"message": "m"}}),
        Outcome(is_cut=True),
    ),
    openai(
        "429: `insufficient_quota`",
        openai_error(429, "You exceeded your current quota", code="insufficient_quota"),
        no_credit(),
    ),
    openai(
        "404: unknown model",
        openai_error(404, "no such model", code="model_not_found"),
        next_one(404, "not_found_error"),
    ),
    openai(
        "401: `invalid_api_key`",
        openai_error(401, "Incorrect API key provided", code="invalid_api_key"),
        refused_key(),
    ),
    openai(
        "400: `context_length_exceeded`",
        openai_error(400, "maximum context length is 9", code="context_length_exceeded"),
        REFUSED,
    ),
    openai(
        "301: it has moved",
        Reply(status=301, headers={"location": "https://example.com/v1/chat/completions"}),
        next_one(404, "not_found_error"),
    ),
    openai(
        "an error in a list",
        whole(
            [{"error": {"code": 400, "message": "API key not valid. Pass a valid API key."}}], 400
        ),
        refused_key(),
    ),
    openai(
        "an error without an object around it, in place of the first chunk",
        completions({"object": "error", "message": "m", "type": "Busy", "code": 503}),
        next_one(529, "overloaded_error"),
    ),
    openai("an error as a text", whole({"error": "bad request"}, 400), REFUSED),
    openai(
        "400: `stream_options` is unknown",
        unless(
            "stream_options",
            openai_error(400, "Unknown parameter: 'stream_options'."),
            completions(chunk(content=TEXT), chunk("stop")),
        ),
        Outcome(asks=2, left_out=("stream_options",)),
    ),
    *ENDS,
    *USAGES,
)
