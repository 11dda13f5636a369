"""What the model is told of the conversation before."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.domain import ids
from orchestrator.domain.sessions import conversations
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.session import Failure
from tests.fakes.samples import NOW, later

MESSAGE = Change(
    session_id=ids.new_session_id(),
    number=1,
    text="make it blue",
    restores=None,
    created_at=NOW,
    ended_at=later(5),
    version=2,
    summary="It is blue.",
)


def told(*changes: Change, asked: str = "a clock", answered: str = "A clock.") -> list[str]:
    return [f"{one.role}: {one.text}" for one in conversations.so_far(asked, answered, changes)]


def test_it_begins_with_the_prompt_and_what_came_of_it() -> None:
    assert told() == ["user: a clock", "assistant: A clock."]
    assert told(answered="") == ["user: a clock"]


def test_each_change_is_told_with_how_it_ended() -> None:
    refused = replace(
        MESSAGE, number=2, version=None, summary="", failure=Failure(code="refused", message="No.")
    )
    back = replace(MESSAGE, number=3, text="", restores=1, version=1, summary="")
    assert told(MESSAGE, refused, back)[2:] == [
        "user: make it blue",
        "assistant: It is blue.",
        "user: make it blue",
        "assistant: That came to nothing: No.",
        "user: Go back to version 1.",
        "assistant: Version 1 runs.",
    ]


def test_what_is_not_over_is_no_part_of_it() -> None:
    assert len(told(replace(MESSAGE, ended_at=None))) == 2


def test_of_a_long_conversation_the_beginning_and_the_end_are_told() -> None:
    many = [
        replace(MESSAGE, number=number, text=f"{number} " + "x" * 1_900) for number in range(1, 40)
    ]
    lines = told(*many)
    assert lines[:2] == ["user: a clock", "assistant: A clock."]
    assert "earlier messages are left out" in lines[2]
    assert lines[-2].startswith("user: 39 ")
    assert sum(map(len, lines)) < 25_000
    dropped = int(lines[2].partition("(")[2].split()[0])
    assert dropped + len(lines) - 3 == 2 * 39


def test_a_long_message_is_cut() -> None:
    (line,) = told(asked="y" * 9_000, answered="")
    assert len(line) == len("user: ") + 4_000
    assert line.endswith("…")
