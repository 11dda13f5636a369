"""Progress: what it says, and that it never falls, stands still or gets to the end."""

from __future__ import annotations

import json

from agent.generator.progress import Progress


def new_progress(expected_tokens: int = 1000) -> tuple[Progress, list[tuple[int, str]]]:
    shown: list[tuple[int, str]] = []
    progress = Progress(
        expected_tokens=expected_tokens, on_change=lambda *change: shown.append(change)
    )
    return progress, shown


def stream(progress: Progress, text: str) -> None:
    for start in range(0, len(text), 24):
        progress.stream(text[start : start + 24])


def test_progress_is_two_thirds_of_its_way_at_what_is_usual_and_never_at_the_end() -> None:
    progress, shown = new_progress()
    stream(progress, "x" * 4000)
    assert 68 <= progress.percent <= 71
    stream(progress, "x" * 4000)
    assert 80 <= progress.percent <= 83
    stream(progress, "x" * 100_000)
    assert progress.percent == 88

    percents = [percent for percent, _ in shown]
    assert percents == sorted(percents)
    assert percents[0] == 31


def test_progress_never_falls_when_the_estimate_was_too_high_or_an_answer_is_lost() -> None:
    progress, _ = new_progress()
    stream(progress, "x" * 4000)
    before = progress.percent
    progress.end_answer(10)

    assert progress.percent == before


def test_the_message_names_the_file_as_soon_as_its_path_is_there() -> None:
    progress, shown = new_progress()
    assert progress.message == "designing the app"
    progress.start_tool("write_file")
    stream(progress, json.dumps({"path": "a.py", "content": 'say("path": "no")'}))
    progress.start_tool("edit_file")
    stream(progress, json.dumps({"path": "b.css", "old_text": "x", "new_text": "y"}))
    progress.start_tool("run")
    stream(progress, json.dumps({"command": "ls", "path": "c"}))

    assert list(dict.fromkeys(message for _, message in shown)) == ["writing a.py", "editing b.css"]


def test_nothing_is_said_twice() -> None:
    progress, shown = new_progress()
    progress.show("starting")
    progress.show("starting")

    assert shown == [(31, "starting")]
