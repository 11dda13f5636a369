"""`spawnctl sessions message` and `restore`: the real process against a stand-in for the API."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.cli import answers
from tests.fakes.cli.answers import GENERATING, LINK, READY, SESSION
from tests.fakes.cli.api import CliApi
from tests.integration.cli.world import DEADLINE_S, Spawnctl

_STATUS = f"/api/status/{SESSION}"
_MESSAGES = f"/api/sessions/{SESSION}/messages"
_RESTORE_PATH = f"/api/sessions/{SESSION}/versions/1/restore"
_MESSAGE = ("sessions", "message", SESSION, "make it blue")
_RESTORE_1 = ("sessions", "restore", SESSION, "1")

BEFORE = answers.message(2, "running", "bigger cards")
OVER = answers.message(2, "done", "bigger cards", version=3)
QUEUED = answers.message(3, "queued")
RUNNING = answers.message(3, "running")
DONE = answers.message(3, "done", version=4, summary="It is blue now:\n- the header\x1b[2J")
FAILED = answers.message(
    3, "failed", error={"code": "app_not_healthy", "message": "It exited.\nKeyError: 'PORT'"}
)
MADE_BEFORE = answers.changing(BEFORE, "generating", 58, "Writing app.js", waiting=1)
MADE = answers.changing(RUNNING, "generating", 62, "Writing style.css")


@pytest.fixture
def api() -> Iterator[CliApi]:
    with CliApi() as server:
        yield server


@pytest.fixture
def spawnctl(api: CliApi, tmp_path: Path) -> Spawnctl:
    return Spawnctl(tmp_path, api.port)


def test_a_message_is_followed_to_its_summary_and_the_link_alone_is_printed(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.script_changes((READY, [QUEUED]), (MADE, [RUNNING]), (READY, [DONE]))
    result = spawnctl(*_MESSAGE)
    assert (result.code, result.out) == (0, LINK + "\n")
    texts = ("waiting", "Writing style.css", "version 4", "header")
    positions = [result.err.index(text) for text in texts]
    assert positions == sorted(positions)
    assert "\x1b" not in result.err
    (request,) = api.requests("POST", _MESSAGES)
    assert request.body == {"text": "make it blue"}
    assert request.headers["idempotency-key"]


def test_a_message_waits_for_its_own_turn_and_its_own_end(spawnctl: Spawnctl, api: CliApi) -> None:
    api.script_changes(
        (MADE_BEFORE, [BEFORE, QUEUED]),
        (READY, [OVER, QUEUED]),
        (MADE, [OVER, RUNNING]),
        (READY, [OVER, DONE]),
    )
    result = spawnctl(*_MESSAGE)
    assert (result.code, result.out) == (0, LINK + "\n")
    assert "  0%  waiting: Change 2 first: Writing app.js" in result.err
    assert "  0%  waiting: Waits for its turn" in result.err
    assert " 62%  generating: Writing style.css" in result.err
    assert "version 4" in result.err


def test_a_message_may_be_done_although_the_next_one_is_under_way(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    after = answers.message(4, "running", "and round")
    ahead = answers.changing(after, "generating", 40, "Writing round.css")
    api.script_changes((MADE, [RUNNING]), (ahead, [DONE, after]))
    result = spawnctl(*_MESSAGE)
    assert (result.code, result.out) == (0, LINK + "\n")
    assert "round.css" not in result.err


def test_a_message_may_be_sent_while_the_app_itself_is_being_made(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.script_changes((GENERATING, [QUEUED]), (READY, [DONE]))
    result = spawnctl(*_MESSAGE)
    assert (result.code, result.out) == (0, LINK + "\n")
    assert "The app itself first: Writing app.js" in result.err


def test_a_change_that_fails_is_exit_code_1_and_the_version_before_goes_on(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.script_changes((MADE, [RUNNING]), (READY, [FAILED]))
    result = spawnctl(*_MESSAGE)
    assert (result.code, result.out) == (1, "")
    assert "app_not_healthy" in result.err
    assert "KeyError: 'PORT'" in result.err
    assert f"The version before goes on serving: {LINK}" in result.err
    assert "spawnctl sessions messages ses_abcdefgh" in result.err


@pytest.mark.parametrize("reported", [True, False])
def test_a_session_that_ends_takes_its_changes_with_it(
    spawnctl: Spawnctl, api: CliApi, reported: bool
) -> None:
    """`reported`: whether the API reports the end of the change too."""
    ended = answers.message(
        3, "failed", ended_at=None, error={"code": "session_ended", "message": "it ended"}
    )
    api.script_changes(
        (MADE, [RUNNING]),
        (answers.status("destroyed", 100), [ended if reported else RUNNING]),
    )
    result = spawnctl(*_MESSAGE)
    assert (result.code, result.out) == (1, "")
    assert "session_ended" in result.err
    assert "goes on serving" not in result.err


def test_a_change_that_was_made_of_an_app_that_is_away_since_has_no_link(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.script_changes((MADE, [RUNNING]), (answers.QUEUED, [DONE]))
    result = spawnctl(*_MESSAGE)
    assert (result.code, result.out) == (1, "")
    assert "version 4" in result.err
    assert "app_not_running" in result.err


@pytest.mark.parametrize(("last", "code"), [(DONE, 0), (FAILED, 1)])
def test_a_message_prints_how_it_ended_as_json(
    spawnctl: Spawnctl, api: CliApi, last: dict[str, Any], code: int
) -> None:
    api.script_changes((MADE, [RUNNING]), (READY, [last]))
    result = spawnctl(*_MESSAGE, "--json")
    assert (result.code, result.json) == (code, {"message": last, "session": READY})


@pytest.mark.parametrize("arguments", [_MESSAGE, _RESTORE_1])
def test_without_waiting_the_number_is_printed(
    spawnctl: Spawnctl, api: CliApi, arguments: tuple[str, ...]
) -> None:
    api.script_changes((READY, [QUEUED]))
    result = spawnctl(*arguments, "--no-wait")
    assert (result.code, result.out) == (0, "3\n")
    assert "spawnctl sessions messages ses_abcdefgh" in result.err
    as_json = spawnctl(*arguments, "--no-wait", "--json")
    assert as_json.json == {"message": QUEUED, "session": READY}
    assert api.requests("GET", _STATUS) == []


def test_a_message_survives_an_api_that_restarts_and_is_said_once(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.script_changes((MADE, [RUNNING]), (READY, [DONE]))
    api.answer(_MESSAGES, 502, "<html>Bad gateway</html>")  # to the POST
    api.answer(_MESSAGES, 202, {"message": RUNNING, "session": MADE})
    api.answer(_MESSAGES, 502, "<html>Bad gateway</html>")  # to the first GET
    api.answer(_STATUS, 502, "<html>Bad gateway</html>")
    result = spawnctl(*_MESSAGE)
    assert (result.code, result.out) == (0, LINK + "\n")
    keys = [post.headers["idempotency-key"] for post in api.requests("POST", _MESSAGES)]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_giving_up_waiting_does_not_end_the_change(spawnctl: Spawnctl, api: CliApi) -> None:
    api.script_changes((MADE, [RUNNING]))
    result = spawnctl(*_MESSAGE, "--timeout", "0s")
    assert (result.code, result.out) == (1, "")
    assert "wait_timeout" in result.err
    assert "change 3 isn't over after 0 s; it goes on" in result.err


def test_control_c_leaves_the_change_and_says_how_to_see_it(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.script_changes((MADE, [RUNNING]))
    with spawnctl.start(*_MESSAGE) as process:
        assert process.stderr is not None
        first_line = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert "Writing style.css" in first_line
    assert (process.returncode, out) == (130, "")
    assert "change 3 goes on" in err
    assert "spawnctl sessions messages ses_abcdefgh" in err
    assert "Traceback" not in err


def test_a_restored_version_is_followed_until_it_runs(spawnctl: Spawnctl, api: CliApi) -> None:
    running = answers.message(3, "running", "")
    deployed = answers.changing(running, "deploying", 90, "Starting version 1")
    done = answers.message(3, "done", "", version=1)
    api.script_changes((deployed, [running]), (READY, [done]))
    result = spawnctl(*_RESTORE_1)
    assert (result.code, result.out) == (0, LINK + "\n")
    assert result.err.index("Starting version 1") < result.err.index("version 1 runs again")
    assert len(api.requests("POST", _RESTORE_PATH)) == 1


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "advice"),
    [
        (422, "message_empty", 2, "spawnctl sessions message ID"),
        (422, "message_too_large", 2, "several messages"),
        (409, "generation_unavailable", 6, "ANTHROPIC_API_KEY"),
        (404, "session_unknown", 4, "spawnctl sessions list"),
        (409, "session_ending", 6, "spawnctl run"),
        (429, "messages_full", 6, "spawnctl sessions messages ID"),
    ],
)
def test_a_message_that_is_refused_is_message_code_and_what_to_do(
    spawnctl: Spawnctl, api: CliApi, status: int, code: str, exit_code: int, advice: str
) -> None:
    api.refuse(_MESSAGES, status, code, "what happened")
    result = spawnctl(*_MESSAGE)
    assert (result.code, result.out) == (exit_code, "")
    assert "Error: what happened" in result.err
    assert f"Code:  {code}" in result.err
    assert advice in result.err


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (404, "version_unknown", 4),
        (409, "version_not_healthy", 6),
        (409, "version_running", 6),
    ],
)
def test_a_version_that_cannot_be_restored_is_a_matter_of_the_list(
    spawnctl: Spawnctl, api: CliApi, status: int, code: str, exit_code: int
) -> None:
    api.refuse(_RESTORE_PATH, status, code, "what happened")
    result = spawnctl(*_RESTORE_1)
    assert (result.code, result.out) == (exit_code, "")
    assert "spawnctl sessions versions ID" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("sessions", "message", SESSION),
        ("sessions", "message", "ses_", "make it blue"),
        ("sessions", "message", SESSION, "make it blue", "--timeout", "?"),
        ("sessions", "restore", SESSION, "0"),
        ("sessions", "restore", SESSION, "the first"),
        ("sessions", "versions", "nonsense"),
        ("sessions", "messages", "../.."),
    ],
)
def test_bad_input_is_refused_before_anything_is_asked(
    spawnctl: Spawnctl, api: CliApi, arguments: tuple[str, ...]
) -> None:
    result = spawnctl(*arguments)
    assert (result.code, result.out) == (2, "")
    assert api.received == []
