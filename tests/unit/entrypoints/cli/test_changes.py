"""How the changes of an app and its versions are shown."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.commands.sessions.waits import change_failed, status_for_change
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.views import changes
from orchestrator.entrypoints.cli.views.progress import describe
from tests.fakes.cli import answers
from tests.fakes.cli.answers import GENERATING, MESSAGES, READY, VERSIONS

RUNNING = answers.message(3, "running")
CHANGING = answers.changing(RUNNING, "generating", 62, "Writing style.css", waiting=1)


def rendered(part: object, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(part)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def conversation(
    status: dict[str, Any], versions: list[dict[str, Any]], *messages: dict[str, Any]
) -> list[str]:
    lines = rendered(changes.conversation(status, versions, messages), 80)
    return [" ".join(line.split()) for line in lines]


def test_ones_own_change_is_shown_as_the_api_tells_it() -> None:
    assert status_for_change(CHANGING, 3) == CHANGING


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (CHANGING, "Change 3 first: Writing style.css"),
        (GENERATING, "The app itself first: Writing app.js"),
        (READY, "Waits for its turn"),
    ],
)
def test_until_it_is_its_turn_a_change_has_no_progress(status: dict[str, Any], text: str) -> None:
    shown = status_for_change(status, 4)
    assert (shown["status"], shown["progress"], describe(shown)) == ("waiting", 0, text)


def test_a_failed_change_says_what_serves_and_what_to_do() -> None:
    error = {"code": "budget_exhausted", "message": "5 dollars are spent"}
    problem = change_failed(answers.message(3, "failed", error=error), READY)
    assert (problem.exit_code, problem.code) == (Exit.FAILED, "budget_exhausted")
    assert problem.message.startswith(
        "5 dollars are spent\nThe version before goes on serving: http"
    )
    assert any("spawnctl usage" in line for line in problem.advice)


def test_without_a_link_nothing_is_said_to_go_on() -> None:
    problem = change_failed(answers.message(3, "running"), answers.status("destroyed", 100))
    assert (problem.code, problem.message) == (
        "session_ended",
        "the session ended before this was done",
    )


def test_every_state_of_a_change_has_a_colour() -> None:
    states = ("queued", "running", "done", "failed")
    assert [state for state in states if not output.state_text(state).style] == []


def test_a_conversation_tells_what_was_said_and_what_it_came_to() -> None:
    lines = conversation(READY, VERSIONS, *MESSAGES)
    first = lines.index("user a kanban board")
    assert lines[first + 1] == "Claude Columns and cards that you drag, kept in the browser."
    assert lines[first + 2].startswith("done version 1, ")
    second = lines.index("1 user make it blue")
    assert lines[second + 1 : second + 4] == ["Claude It is blue now:", "- the header", "- cards"]
    assert lines[second + 4].startswith("done version 2, ")
    assert "2 user restore version 1" in lines
    (failed,) = [number for number, line in enumerate(lines) if line.startswith("failed")]
    assert lines[failed].startswith("failed app_not_healthy, ")
    assert lines[failed + 1 : failed + 3] == ["The app exited.", "KeyError: 'PORT'"]
    assert lines[-1].startswith("queued asked for ")


def test_a_conversation_about_an_app_that_is_still_being_made_says_how_far_it_is() -> None:
    broken = answers.version(1, healthy=False)
    for versions in ([], [broken]):
        lines = conversation(GENERATING, versions)
        assert lines == ["user a kanban board", "generating Writing app.js"]


def test_a_conversation_about_a_template_names_it() -> None:
    template = {**READY, "template": "kanban"}
    assert conversation(template, [])[0] == "user template kanban: a kanban board"
    assert conversation({**template, "prompt": ""}, [])[0] == "user template kanban"


def test_nothing_of_a_conversation_acts_on_the_terminal() -> None:
    nasty = "\x1b]52;c;ZXZpbA==\x07\x9b2J\u202e"
    error = {"code": nasty, "message": nasty}
    message = answers.message(1, "failed", nasty, summary=nasty, error=error)
    session = {**READY, "prompt": nasty, "message": nasty, "template": nasty}
    version = answers.version(1, summary=nasty, title=nasty, provider=nasty, kind=nasty)
    text = "\n".join(
        [
            *rendered(changes.conversation(session, [version], [message]), 80),
            *rendered(changes.conversation(session, [], []), 80),
            *rendered(changes.versions_table([version], wide=True), 160),
            *rendered(changes.versions_table([version], wide=False), 80),
        ]
    )
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)


def test_a_list_of_versions_fits_80_columns_and_marks_what_runs_and_what_never_did() -> None:
    long = [{**version, "summary": "a long summary " * 20} for version in VERSIONS]
    lines = rendered(changes.versions_table(long, wide=False), 80)
    assert max(map(len, lines)) <= 80
    runs, kept, broken = lines[2:]
    assert runs.split()[:4] == ["1", "runs", "prompt", "anthropic"]
    assert kept.split()[:5] == ["2", "kept", "message", "1", "fallback"]
    assert broken.split()[:5] == ["3", "broken", "message", "3", "anthropic"]
    assert all(line.endswith("\N{HORIZONTAL ELLIPSIS}") for line in lines[2:])


def test_a_wide_list_of_versions_has_titles_beside_summaries() -> None:
    lines = rendered(changes.versions_table(VERSIONS, wide=True), 160)
    assert lines[2].endswith("Kanban board  Columns and cards that you drag, kept in the browser.")
    assert "1.2 MB" in lines[4]
    assert " python " in lines[4]


def test_a_version_that_nobody_wrote_is_a_template() -> None:
    (row,) = rendered(changes.versions_table([answers.version(1, provider="")], wide=False), 80)[2:]
    assert row.split()[:4] == ["1", "kept", "template", "-"]
