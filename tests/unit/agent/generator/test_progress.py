"""Progress: what it says, and that it never falls, stands still or gets to the end."""

from __future__ import annotations

import json

from agent.generator.progress import Progress


def fresh(expected_tokens: int = 1000) -> tuple[Progress, list[tuple[int, str]]]:
    said: list[tuple[int, str]] = []
    return Progress(expected_tokens=expected_tokens, on_change=lambda *now: said.append(now)), said


def stream(progress: Progress, text: str) -> None:
    for start in range(0, len(text), 24):
        progress.stream(text[start : start + 24])


def test_progress_is_two_thirds_of_its_way_at_what_is_usual_and_never_at_the_end() -> None:
    progress, said = fresh()
    stream(progress, "x" * 4000)
    assert 68 <= progress.percent <= 71
    stream(progress, "x" * 4000)
    assert 80 <= progress.percent <= 83
    stream(progress, "x" * 100_000)
    assert progress.percent == 88

    percents = [percent for percent, _ in said]
    assert percents == sorted(percents)
    assert percents[0] == 31


def test_progress_never_falls_when_the_estimate_was_too_high_or_an_answer_is_lost() -> None:
    progress, _ = fresh()
    stream(progress, "x" * 4000)
    before = progress.percent
    progress.answered(10)

    assert progress.percent == before


def test_the_message_names_the_file_as_soon_as_its_path_is_there() -> None:
    progress, said = fresh()
    assert progress.message == "designing the app"
    progress.tool_begins("write_file")
    stream(progress, json.dumps({"path": "a.py", "content": 'say("path": "no")'}))
    progress.tool_begins("edit_file")
    stream(progress, json.dumps({"path": "b.css", "old_text": "x", "new_text": "y"}))
    progress.tool_begins("run")
    stream(progress, json.dumps({"command": "ls", "path": "c"}))

    assert list(dict.fromkeys(message for _, message in said)) == ["writing a.py", "editing b.css"]


def test_nothing_is_said_twice() -> None:
    progress, said = fresh()
    progress.at("starting")
    progress.at("starting")

    assert said == [(31, "starting")]
