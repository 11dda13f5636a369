"""The generator's messages are foreign input: each is understood, or refused with the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from agent.jobs.messages import (
    Failed,
    Finished,
    Get,
    Open,
    Progressed,
    QuestionInvalid,
    Run,
    Start,
    parse_message,
)

from orchestrator.contract.wire import FailureCode, ProtocolError

QUESTIONS: dict[str, dict[str, Any]] = {
    "start": {},
    "open": {},
    "get": {"paths": ["/", "/a.css"], "max_bytes": 100, "navigates": True, "cookie": "a=1"},
    "run": {"command": ["/bin/sh", "-c", "true"], "limit_s": 5},
}


def line(event: str, **fields: object) -> str:
    return json.dumps({"event": event, **fields})


def test_each_message_becomes_a_value() -> None:
    assert parse_message(line("progress", progress=40, message="x")) == Progressed(
        percent=40, message="x"
    )
    assert parse_message(line("result", summary="Done.")) == Finished(summary="Done.")
    assert parse_message(line("error", code="refused", message="no")) == Failed(
        code=FailureCode.REFUSED, message="no"
    )
    questions = [parse_message(line("ask", ask=name, **QUESTIONS[name])) for name in QUESTIONS]
    assert questions == [
        Start(),
        Open(),
        Get(paths=("/", "/a.css"), max_bytes=100, navigates=True, cookie="a=1"),
        Run(command=("/bin/sh", "-c", "true"), limit_s=5),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[]",
        "{}",
        '{"event":' + "[" * 100_000,
        "\udcff",
        line("dance"),
        line("progress", progress="x", message="x"),
        line("progress", progress=101, message="x"),
        line("progress", progress=10**400, message="x"),
        line("progress", progress=float("nan"), message="x"),
        line("result"),
        line("error", code="other", message="x"),
    ],
)
def test_a_message_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_message(text)
    assert not isinstance(caught.value, QuestionInvalid)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("dance", {}, "ask: is unknown"),
        ("run", {"command": ["sh", "-c", "a\0b"]}, "command: holds a NUL character"),
        ("run", {"command": ["sh", "\ud800"]}, "characters that are no text"),
        ("run", {"command": "ls"}, "not a list"),
        ("run", {"command": ["x" * 200_000]}, "longer than"),
        ("run", {"command": ["x"] * 65}, "more than 64"),
        ("run", {"limit_s": 10**400}, "limit_s: is too large"),
        ("run", {"limit_s": float("nan")}, "limit_s: must be a finite number"),
        ("run", {"limit_s": float("inf")}, "limit_s: must be a finite number"),
        ("run", {"limit_s": None}, "limit_s: is missing"),
        ("get", {"paths": [5]}, "not a list of texts"),
        ("get", {"paths": ["/"] * 1000}, "more than 60"),
        ("get", {"paths": ["/" + "x" * 2000]}, "longer than 2000"),
        ("get", {"max_bytes": 10**9}, "must be from 0 to"),
        ("get", {"navigates": "text/html"}, "navigates: "),
    ],
)
def test_a_question_that_can_not_be_asked_gets_the_reason(
    name: str, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(QuestionInvalid, match=says):
        parse_message(line("ask", ask=name, **{**QUESTIONS.get(name, {}), **changes}))
