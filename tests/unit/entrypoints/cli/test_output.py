"""What spawnctl shows, and what it never sends to a terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from orchestrator.domain.pool.host import HostState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import SessionState
from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.commands.status import overview_parts
from orchestrator.entrypoints.cli.views import hosts, sessions, usage
from orchestrator.entrypoints.cli.views.progress import Lines, describe, seconds_text
from tests.fakes.cli import answers

NOW = datetime(2030, 1, 2, 12, 0, tzinfo=UTC)


def rendered(part: object, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("nasty", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]52;c;ZXZpbA==\x1b\\clip", "clip"),
        ("\x9b31mc1", "\N{REPLACEMENT CHARACTER}31mc1"),
        ("back\x08space", "back\N{REPLACEMENT CHARACTER}space"),
        ("right\u202eleft", "right\N{REPLACEMENT CHARACTER}left"),
        ("two\nlines\tand  tabs", "two lines and tabs"),
        ("[bold]markup[/bold]", "[bold]markup[/bold]"),
    ],
)
def test_text_of_users_reaches_the_terminal_without_control_characters(
    nasty: str, shown: str
) -> None:
    assert output.plain(nasty) == shown


def test_log_lines_keep_their_line_breaks_and_tabs() -> None:
    assert output.plain_lines("a\n\tb\x1b[2J") == "a\n\tb"


def test_json_is_escaped_so_that_a_terminal_does_not_act_on_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.print_json({"prompt": "\x1b[2J\x9b"})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed


def test_every_state_has_a_colour() -> None:
    states = [*SessionState, *HostState, *(state for state in SandboxState if state != "gone")]
    assert [state for state in states if not output.state_text(state).style] == []


@pytest.mark.parametrize(
    ("time", "ago"),
    [
        ("2030-01-02T11:59:48+00:00", "12 s"),
        ("2030-01-02T10:30:00+00:00", "1 h 30 min"),
        ("2030-01-02T13:00:00+02:00", "1 h"),
        ("2030-01-02T12:00:05+00:00", "0 s"),
    ],
)
def test_an_age_is_said_as_people_say_it(time: str, ago: str) -> None:
    assert output.age(time, NOW) == ago


def test_what_has_expired_is_over() -> None:
    assert output.time_left("2030-01-02T11:59:59+00:00", NOW) == "over"
    assert output.time_left("2030-01-03T14:00:00+00:00", NOW) == "1 d 2 h"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0123, "12 ms"), (1.25, "1.2 s"), (59.94, "59.9 s"), (90, "1 min 30 s")]
)
def test_a_phase_may_last_milliseconds(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_a_list_of_sessions_fits_80_columns_and_keeps_ids_and_states_whole() -> None:
    long = answers.operator_status(
        {**answers.status("provisioning", 30), "prompt": "a long prompt " * 20}
    )
    text = rendered(sessions.sessions_table([long], wide=False), 80)
    assert max(map(len, text.splitlines())) <= 80
    row = text.splitlines()[2]
    assert row.startswith("ses_abcdefgh  provisioning")
    assert row.rstrip().endswith("\N{HORIZONTAL ELLIPSIS}")
    assert len(text.splitlines()) == 3


def test_a_wide_list_of_sessions_has_whole_links() -> None:
    text = rendered(sessions.sessions_table(answers.SESSIONS, wide=True), 140)
    assert answers.LINK in text


def test_an_ended_session_has_no_time_left() -> None:
    gone = answers.operator_status(answers.status("destroyed", 100))
    row = rendered(sessions.sessions_table([gone], wide=False), 80).splitlines()[2]
    assert row.split()[-4:] == ["-", "a", "kanban", "board"]


def test_the_story_of_a_failed_session_ends_with_every_line_of_its_error() -> None:
    failed = answers.operator_status(answers.FAILED, sandbox=None)
    text = "".join(rendered(part, 80) for part in sessions.details(failed, [], answers.NO_COST))
    assert "app_not_ready" in text
    assert text.rstrip().endswith("The app exited.\nKeyError: 'PORT'")


def test_the_story_of_what_failed_for_want_of_claude_offers_the_nearest_template() -> None:
    offer = {"template": "kanban", "title": "Kanban \x1b[31mboard"}
    failed = answers.operator_status({**answers.FAILED, "offer": offer}, sandbox=None)
    parts = sessions.details(failed, [], answers.NO_COST)
    text = "".join(rendered(part, 80) for part in parts)
    assert "Kanban board; spawnctl run --template kanban" in text


@pytest.mark.parametrize(
    ("version", "versions", "text"),
    [
        (0, [], "none yet"),
        (2, [], "2"),
        (1, answers.VERSIONS, "1 of 3, from the prompt (anthropic)"),
        (1, [answers.version(1, running=True, provider="")], "1 of 1, from the template"),
        (
            2,
            [answers.version(1), answers.version(2, running=True, provider="fallback")],
            "2 of 2, from message 1 (fallback)",
        ),
    ],
)
def test_the_version_that_runs_is_named_with_who_made_it(
    version: int, versions: list[dict[str, object]], text: str
) -> None:
    session = answers.operator_status({**answers.READY, "version": version}, sandbox=None)
    parts = sessions.details(session, versions, answers.NO_COST)
    lines = "".join(rendered(part, 80) for part in parts).splitlines()
    (value,) = [line.split(None, 1)[1].rstrip() for line in lines if line.startswith("version")]
    assert value == text


def test_a_cost_names_the_providers_if_there_are_several() -> None:
    row = answers.COST["by_provider"][0]
    assert "anthropic" not in usage.summary(answers.COST)
    both = {**answers.COST, "by_provider": [row, {**row, "key": "fallback", "cost_usd": 0.5}]}
    text = usage.summary(both)
    assert text.endswith("234,567 out; anthropic $123.4568, fallback $0.5000")
    assert usage.summary({**answers.COST, "calls": 1}).startswith("$123.4568 for 1 call:")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB")],
)
def test_a_size_is_said_as_people_say_it(size_bytes: int, text: str) -> None:
    assert output.size(size_bytes) == text


def test_the_overview_says_what_is_missing() -> None:
    overview = {**answers.OVERVIEW, "pool": {**answers.POOL, "queues": None, "hosts": []}}
    text = "".join(rendered(part, 80) for part in overview_parts(overview, "http://localhost:8080"))
    assert "1 ready, 2 failed" in text
    assert "Redis does not answer" in text
    assert "none has joined yet" in text
    assert "local: the runtime image is missing" in text
    assert "no ANTHROPIC_API_KEY" in text


def test_a_host_shows_the_operators_marks_and_its_reason() -> None:
    host = {**answers.POOL["hosts"][0], "reason": "does not answer"}
    assert "cordoned; does not answer" in rendered(hosts.hosts_table([host], wide=False), 80)


def test_the_place_in_the_queue_is_said() -> None:
    assert describe(answers.QUEUED) == "Waiting for a free sandbox (place 2 in the queue)"


def test_progress_in_a_log_file_says_each_thing_once() -> None:
    console = Console(file=io.StringIO(), width=80)
    lines = Lines(console)
    for status in (
        answers.QUEUED,
        answers.QUEUED,
        answers.GENERATING,
        answers.READY,
    ):
        lines.show(status)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue().splitlines()
    assert printed == [
        " 10%  queued: Waiting for a free sandbox (place 2 in the queue)",
        " 58%  generating: Writing app.js",
        "100%  ready: Your app is running",
    ]
