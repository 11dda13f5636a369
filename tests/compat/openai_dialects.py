"""More rows of providers that have an API like OpenAI's: the dialects of single servers."""

from __future__ import annotations

import gzip
from typing import Any

from tests.compat.answers import (
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
    once,
    openai_error,
    piece,
    unless,
    whole,
)
from tests.compat.cases import LOST, REFUSED, TWO_CALLS, Case, Outcome, next_one, openai
from tests.fakes.llm.odd_provider import Reply

HELLO = completions(chunk(content=TEXT), chunk("stop"))
ONE_CALL = Outcome(content=({"n": 0},))
LONG_ID = "x" * 300
THOUGHT = Outcome(content=("(Hm.)", TEXT))
FILTERED: Json = {"hate": {"filtered": False, "severity": "safe"}}
_TOOL = {"name": "f0", "input_schema": {"type": "object"}}


def _after_a_call(**block: Any) -> Json:
    """A request that returns the result of a call, which another provider made."""
    use = {"type": "tool_use", "id": "toolu_01A09q90qw90lq917835lq9", "name": "f0", "input": {}}
    result = {"type": "tool_result", "tool_use_id": use["id"], "content": "done"}
    return {
        "tools": [_TOOL],
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": [*([block] if block else []), use]},
            {"role": "user", "content": [result]},
        ],
    }


def _with_ids(name: str, *ids: str | None) -> Case:
    return openai(
        f"ids of calls: {name}",
        calls({"tool_calls": [call(at, index=at, id=id_) for at, id_ in enumerate(ids)]}),
        TWO_CALLS if len(ids) > 1 else ONE_CALL,
    )


IDS = (
    _with_ids("of a form of its own: `functions.f:0`", "functions.f:0", "functions.f:1"),
    _with_ids("empty", "", ""),
    _with_ids("of 300 characters", LONG_ID, LONG_ID),
    _with_ids("in other letters", "é\u4e16", "é\u4e17"),
    _with_ids("numbers as text", "0", "1"),
    openai(
        "not streamed: all calls have the same id, of a form of its own",
        whole(completion(tool_calls=[call(0, id="f:0"), call(1, id="f:0")])),
        TWO_CALLS,
        is_streamed=False,
    ),
    openai(
        "takes ids of nine letters and digits alone, after a call of another provider",
        unless("toolu_01A09q90qw90lq917835lq9", openai_error(400, "Tool call id was bad"), HELLO),
        asked=_after_a_call(),
    ),
)

THOUGHTS = (
    *(
        openai(
            f"thoughts in `{field}`",
            completions(
                chunk(**{field: "H"}), chunk(**{field: "m."}), chunk(content=TEXT), chunk("stop")
            ),
            THOUGHT,
        )
        for field in ("reasoning_content", "reasoning", "thinking")
    ),
    openai(
        "not streamed: thoughts in `reasoning_content`",
        whole(completion(content=TEXT, reasoning_content="Hm.")),
        THOUGHT,
        is_streamed=False,
    ),
    openai(
        "wants its thoughts of earlier answers back",
        unless("reasoning_content", HELLO, openai_error(400, "Missing `reasoning_content`")),
        asked=_after_a_call(type="thinking", thinking="Hm.", signature="oai-reasoning_content"),
    ),
    openai(
        "DeepSeek, Kimi: want thoughts with each answer, also of other providers",
        unless("reasoning_content", HELLO, openai_error(400, "Missing `reasoning_content`")),
        model="deepseek-v4-pro",
        asked=_after_a_call(),
    ),
    openai(
        "400: thoughts that are sent back are unknown",
        unless(
            "reasoning",
            openai_error(400, "'messages.1': property 'reasoning' is unsupported"),
            HELLO,
        ),
        Outcome(asks=2, left_out=("reasoning",)),
        asked=_after_a_call(type="thinking", thinking="Hm.", signature="oai-reasoning"),
    ),
)

CHUNKS = (
    openai(
        "`choices: []` and `delta: null` again and again, the role with each piece",
        completions(
            *({**chunk(), "choices": []}, {"choices": [{"delta": None}]}) * 2,
            chunk(role="assistant", content=TEXT[:4], tool_calls=[]),
            chunk(role="assistant", content=TEXT[4:], tool_calls=None),
            chunk("stop", role="assistant"),
        ),
    ),
    openai(
        "a message in place of a piece",
        completions({"choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]}),
    ),
    openai(
        "the whole message again with the last chunk",
        completions(
            chunk(content=TEXT),
            {"choices": [{"delta": {}, "message": {"content": TEXT}, "finish_reason": "stop"}]},
        ),
    ),
    openai(
        "arguments encoded twice",
        calls({"tool_calls": [call(0, '"{\\"n\\": 0}"', id="a"), call(1, '"{\\"n\\": 1}"')]}),
        TWO_CALLS,
    ),
    openai(
        "not streamed: arguments encoded twice",
        whole(completion(tool_calls=[call(0, '"{\\"n\\": 0}"', id="a")])),
        ONE_CALL,
        is_streamed=False,
    ),
    openai(
        "arguments that are an empty list",
        calls({"tool_calls": [call(0, [], id="a")]}),
        Outcome(content=({},)),
    ),
    openai(
        "`function_call` in place of `tool_calls`",
        completions(
            chunk(function_call={"name": "f0", "arguments": '{"n"'}),
            chunk(function_call={"arguments": ": 0}"}),
            chunk("function_call"),
        ),
        ONE_CALL,
    ),
    openai(
        "fields of an error with nothing in them",
        completions({**chunk("stop", content=TEXT), "error": {"message": "", "code": None}}),
    ),
    openai("no content type", Reply(content_type="", pieces=HELLO.pieces)),
    openai("a stream as `text/plain`", Reply(content_type="text/plain", pieces=HELLO.pieces)),
    openai(
        "compressed, though not asked for",
        Reply(pieces=[gzip.compress(b"".join(HELLO.pieces))], headers={"content-encoding": "gzip"}),
    ),
)

ERRORS = (
    openai(
        "an error in the midst of an answer, with a number as its code",
        completions(chunk(content=TEXT), {"error": {"message": "m", "code": 502}}),
        Outcome(is_cut=True),
    ),
    openai(
        "an error in place of the first chunk, with its status as text",
        completions({"error": {"message": "m", "code": "429"}}),
        next_one(429, "rate_limit_error"),
    ),
    openai(
        "an error as a text, with its status beside it, in place of the first chunk",
        completions({"error": "m", "status_code": 503}),
        next_one(529, "overloaded_error"),
    ),
    openai(
        "a field `error:` in place of the first chunk",
        Reply(pieces=[b'error: {"code": 500, "message": "m"}\n\n']),
        LOST,
    ),
    openai(
        "an error that is compressed",
        Reply(
            status=400,
            content_type=JSON_TYPE,
            headers={"content-encoding": "gzip"},
            pieces=[gzip.compress(encode({"error": {"message": "m", "code": 400}}))],
        ),
        REFUSED,
    ),
    openai(
        "429 with a time as `Retry-After`, then an answer",
        once(
            Reply(
                status=429,
                content_type=JSON_TYPE,
                headers={
                    "date": "Sun, 29 Nov 2026 16:00:00 GMT",
                    "retry-after": "Sun, 29 Nov 2026 16:00:01 GMT",
                },
                pieces=[encode({"error": {"message": "slow down"}})],
            ),
            HELLO,
        ),
        Outcome(asks=2),
    ),
    openai(
        "429 with a time as `Retry-After` that is too far",
        Reply(
            status=429,
            content_type=JSON_TYPE,
            headers={
                "date": "Sun, 29 Nov 2026 16:00:00 GMT",
                "retry-after": "Sun, 29 Nov 2026 17:00:00 GMT",
            },
            pieces=[encode({"error": {"message": "slow down"}})],
        ),
        next_one(429, "rate_limit_error", is_patient=True),
    ),
)

SERVERS = (
    openai(
        "Azure: results of its filter before and beside the answer",
        completions(
            {"id": "", "model": "", "choices": [], "prompt_filter_results": [FILTERED]},
            {
                "choices": [
                    {"delta": {"content": TEXT}, "content_filter_results": FILTERED, "index": 0}
                ]
            },
            {
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": None,
                        "content_filter_offsets": {"check_offset": 44},
                        "content_filter_results": FILTERED,
                    }
                ]
            },
            chunk("stop"),
        ),
    ),
    openai(
        "Azure: its filter refuses the prompt",
        openai_error(
            400,
            "The response was filtered",
            code="content_filter",
            innererror={"code": "ResponsibleAIPolicyViolation"},
        ),
        REFUSED,
    ),
    openai(
        "Gemini: calls with `extra_content`, all with index 0",
        calls(
            *(
                {
                    "role": "assistant",
                    "tool_calls": [
                        call(
                            at,
                            index=0,
                            id=f"function-call-123456789012345678{at}",
                            extra_content={"google": {"thought_signature": "x" * 3000}},
                        )
                    ],
                }
                for at in range(2)
            ),
            finish="stop",
        ),
        TWO_CALLS,
    ),
    openai(
        "Gemini: wants the first call of each answer signed",
        unless("thought_signature", HELLO, openai_error(400, "is missing a thought_signature")),
        model="gemini-3-pro",
        asked=_after_a_call(),
    ),
    openai(
        "Ollama: whole calls in one chunk, `stop` after them, and thoughts",
        completions(
            chunk(role="assistant", content="", reasoning="Hm."),
            chunk(
                content="",
                tool_calls=[call(0, index=0, id="call_1"), call(1, index=0, id="call_2")],
            ),
            chunk("stop", content=""),
        ),
        Outcome(content=("(Hm.)", {"n": 0}, {"n": 1})),
    ),
    openai(
        "llama.cpp: the usage in a chunk of its own, with `timings`",
        completions(
            chunk(role="assistant", content=None),
            chunk(content=TEXT),
            chunk("stop"),
            {"choices": [], "usage": {"prompt_tokens": 11}, "timings": {"prompt_n": 1}},
        ),
    ),
    openai(
        "vLLM: the usage with each chunk, empty lists of calls, the token that ended it",
        completions(
            *(
                chunk(
                    usage={"prompt_tokens": 11, "completion_tokens": at},
                    content=text,
                    tool_calls=[],
                )
                for at, text in enumerate((TEXT[:4], TEXT[4:]))
            ),
            {
                "choices": [
                    {"delta": {"content": ""}, "finish_reason": "stop", "stop_reason": 151645}
                ]
            },
        ),
    ),
    openai(
        "vLLM: the pieces of a call, the id of 46 characters with each",
        calls(
            *(
                {"tool_calls": [{**piece(text, index=0, id=f"chatcmpl-tool-{'a' * 32}"), **more}]}
                for text, more in (
                    ("", {"function": {"name": "f0", "arguments": ""}}),
                    ('{"n"', {}),
                    (": 0}", {}),
                )
            )
        ),
        ONE_CALL,
    ),
    openai(
        "OpenRouter: comments while it works, then an error beside an empty choice",
        Reply(
            pieces=[
                b": OPENROUTER PROCESSING\n\n" * 3,
                *lines(
                    [
                        {
                            **chunk("error", content=""),
                            "error": {"code": 502, "message": "Provider disconnected"},
                        }
                    ]
                ),
            ]
        ),
        next_one(500, "api_error"),
    ),
)

CASES = (*IDS, *THOUGHTS, *CHUNKS, *ERRORS, *SERVERS)
