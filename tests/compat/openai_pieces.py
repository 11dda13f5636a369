"""More rows of providers that have an API like OpenAI's: how the pieces of tool calls come."""

from __future__ import annotations

from typing import Any

from tests.compat.answers import TEXT, Json, call, calls, chunk, completion, completions, whole
from tests.compat.cases import TWO_CALLS, Case, Outcome, openai

_CALL = Outcome(content=({"n": 0},))
_NONE = Outcome(content=({},))


def _piece(arguments: str | None = None, name: str | None = None, **fields: Any) -> Json:
    """A piece of the first call, with what it says."""
    given = {"name": name, "arguments": arguments}
    function = {field: value for field, value in given.items() if value is not None}
    return {"index": 0, "function": function, **fields}


def _in_pieces(behaviour: str, *pieces: Json, outcome: Outcome = _CALL) -> Case:
    return openai(behaviour, calls(*({"tool_calls": [piece]} for piece in pieces)), outcome)


EMPTY_OBJECTS = (
    _in_pieces(
        "a call begins with the arguments `{}`, then the real ones",
        _piece("{}", "f", id="a"),
        _piece('{"n": 0}'),
    ),
    _in_pieces(
        "the same, and the real ones come in pieces",
        _piece("{}", "f", id="a"),
        _piece('{"n"'),
        _piece(": 0}"),
    ),
    _in_pieces(
        "the same, with id and name on each piece",
        _piece("{}", "f", id="a"),
        _piece('{"n"', "f", id="a"),
        _piece(": 0}", "f", id="a"),
    ),
    _in_pieces(
        "a whole call, then the arguments `{}`",
        _piece('{"n": 0}', "f", id="a"),
        _piece("{}"),
    ),
    _in_pieces(
        "the same, with id and name again",
        _piece('{"n": 0}', "f", id="a"),
        _piece("{}", "f", id="a"),
    ),
    _in_pieces("a call has the arguments `{}`", _piece("{}", "f", id="a"), outcome=_NONE),
    _in_pieces(
        "two calls have the arguments `{}`",
        _piece("{}", "f", id="a"),
        _piece("{}", "f", id="b"),
        outcome=Outcome(content=({}, {})),
    ),
    _in_pieces(
        "an object in the arguments comes as a piece of its own",
        _piece('{"a": ', "f", id="a"),
        _piece("{}"),
        _piece("}"),
        outcome=Outcome(content=({"a": {}},)),
    ),
)

REPEATED = (
    _in_pieces(
        "each piece of a call has its arguments so far",
        _piece('{"n"', "f", id="a"),
        _piece('{"n": ', id="a"),
        _piece('{"n": 0}', id="a"),
        _piece('{"n": 0}', id="a"),
    ),
    _in_pieces(
        "the same, with the name on each piece",
        _piece('{"n"', "f", id="a"),
        _piece('{"n": ', "f", id="a"),
        _piece('{"n": 0}', "f", id="a"),
    ),
    _in_pieces(
        "an object in the arguments begins as they do, with the id on each piece",
        _piece('{"a": ', "f", id="a"),
        _piece('{"a": 1}', id="a"),
        _piece("}", id="a"),
        outcome=Outcome(content=({"a": {"a": 1}},)),
    ),
    _in_pieces(
        "a whole call comes again, with the same id and index",
        _piece('{"n": 0}', "f", id="a"),
        _piece('{"n": 0}', "f", id="a"),
    ),
    openai(
        "the pieces of two calls, then both once more as a whole",
        calls(
            {"tool_calls": [call(0, '{"n"', index=0, id="a")]},
            {"tool_calls": [_piece(": 0}")]},
            {"tool_calls": [call(1, index=1, id="b")]},
            {"tool_calls": [call(0, index=0, id="a"), call(1, index=1, id="b")]},
        ),
        TWO_CALLS,
    ),
    _in_pieces(
        "two whole calls of one function, with the same id and index",
        _piece('{"n": 0}', "f", id="a"),
        _piece('{"n": 1}', "f", id="a"),
        outcome=TWO_CALLS,
    ),
)

NAMES = (
    _in_pieces(
        "the name of a call in pieces, the id on the first one",
        _piece(None, "f", id="a"),
        _piece(None, "oo"),
        _piece('{"n": 0}'),
    ),
    _in_pieces(
        "the same, with the id on each piece",
        _piece("", "f", id="a"),
        _piece("", "oo", id="a"),
        _piece('{"n": 0}', id="a"),
    ),
)

SECOND: Json = {"index": 1, "delta": {"content": "Or?"}, "finish_reason": None}

CHOICES = (
    openai(
        "a second choice, though one was asked for",
        completions(
            chunk(content=TEXT[:4]),
            {"choices": [SECOND]},
            {"choices": [SECOND, *chunk(content=TEXT[4:])["choices"]]},
            chunk("stop"),
        ),
    ),
    openai(
        "not streamed: a second choice, in front of the first one",
        whole(
            {
                **completion(content=TEXT),
                "choices": [
                    {"index": 1, "message": {"content": "Or?"}},
                    *completion(content=TEXT)["choices"],
                ],
            }
        ),
        is_streamed=False,
    ),
    openai(
        "the only choice has index 1",
        completions({"choices": [{"index": 1, "delta": {"content": TEXT}}]}, chunk("stop")),
    ),
)

CASES = (*EMPTY_OBJECTS, *REPEATED, *NAMES, *CHOICES)
