"""What the model gets to read of the earlier conversation."""

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


def lines_of(*changes: Change, prompt: str = "a clock", summary: str = "A clock.") -> list[str]:
    messages = conversations.conversation_of(prompt, summary, changes)
    return [f"{message.role}: {message.text}" for message in messages]


def test_it_begins_with_the_prompt_and_the_summary() -> None:
    assert lines_of() == ["user: a clock", "assistant: A clock."]
    assert lines_of(summary="") == ["user: a clock"]


def test_each_change_comes_with_how_it_ended() -> None:
    refused = replace(
        MESSAGE, number=2, version=None, summary="", failure=Failure(code="refused", message="No.")
    )
    restore = replace(MESSAGE, number=3, text="", restores=1, version=1, summary="")
    assert lines_of(MESSAGE, refused, restore)[2:] == [
        "user: make it blue",
        "assistant: It is blue.",
        "user: make it blue",
        "assistant: This change failed: No.",
        "user: Go back to version 1.",
        "assistant: Version 1 runs.",
    ]


def test_a_change_that_has_not_ended_is_left_out() -> None:
    assert len(lines_of(replace(MESSAGE, ended_at=None))) == 2


def test_a_long_conversation_keeps_its_beginning_and_its_end() -> None:
    changes = [
        replace(MESSAGE, number=number, text=f"{number} " + "x" * 1_900) for number in range(1, 40)
    ]
    lines = lines_of(*changes)
    assert lines[:2] == ["user: a clock", "assistant: A clock."]
    assert "earlier messages are left out" in lines[2]
    assert lines[-2].startswith("user: 39 ")
    assert sum(map(len, lines)) < 25_000
    dropped = int(lines[2].partition("(")[2].split()[0])
    assert dropped + len(lines) - 3 == 2 * 39


def test_changes_that_are_not_looked_at_count_as_left_out() -> None:
    latest = [replace(MESSAGE, number=number) for number in (301, 302)]
    lines = lines_of(*latest)
    assert lines[2] == "assistant: (600 earlier messages are left out here.)"
    assert len(lines) == 3 + 4


def test_a_long_message_is_cut() -> None:
    (line,) = lines_of(prompt="y" * 9_000, summary="")
    assert len(line) == len("user: ") + 4_000
    assert line.endswith("…")
