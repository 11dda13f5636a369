"""`spawnctl run` and what goes wrong: the real process against a stand-in for the API."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.cli import answers
from tests.fakes.cli.answers import FAILED, GENERATING, KEY, LINK, QUEUED, READY, SESSION
from tests.fakes.cli.api import CliApi
from tests.integration.cli.world import DEADLINE_S, Spawnctl

_STATUS = f"/api/status/{SESSION}"
_SESSION = f"/api/admin/sessions/{SESSION}"


@pytest.fixture
def api() -> Iterator[CliApi]:
    with CliApi() as server:
        yield server


@pytest.fixture
def spawnctl(api: CliApi, tmp_path: Path) -> Spawnctl:
    return Spawnctl(tmp_path, api.port)


def test_run_shows_progress_on_stderr_and_prints_the_link_alone(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    result = spawnctl("run", "a kanban board", "--ttl", "2h")
    assert (result.code, result.out) == (0, LINK + "\n")
    assert (
        result.err.index("queued") < result.err.index("Writing app.js") < result.err.index("Ready")
    )
    (request,) = api.requests("POST", "/api/sessions")
    assert request.body == {"prompt": "a kanban board", "template": None, "ttl": "2h"}
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_run_waits_by_long_poll_and_lets_the_api_say_that_nothing_changed(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    assert spawnctl("run", "x").code == 0
    polls = api.requests("GET", _STATUS)
    assert {poll.query["wait"] for poll in polls} == {"25"}
    assert all("if-none-match" in poll.headers for poll in polls)
    assert api.not_modified > 0


def test_run_waits_and_goes_on_while_its_address_asks_for_too_much(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.refuse("/api/sessions", 429, "too_many_requests", "too much", limit=100, retry_after=1)
    api.refuse(_STATUS, 429, "too_many_connections", "too much", limit=1200, retry_after=1)
    result = spawnctl("run", "a kanban board")
    assert (result.code, result.out) == (0, LINK + "\n")
    first, second = api.requests("POST", "/api/sessions")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


def test_run_survives_an_api_that_restarts(spawnctl: Spawnctl, api: CliApi) -> None:
    api.answer("/api/sessions", 502, "<html>Bad gateway</html>")
    api.answer(_STATUS, 502, "<html>Bad gateway</html>")
    api.refuse(_STATUS, 503, "queue_unavailable", "Redis does not answer", retry_after=1)
    result = spawnctl("run", "a kanban board")
    assert (result.code, result.out) == (0, LINK + "\n")
    keys = [post.headers["idempotency-key"] for post in api.requests("POST", "/api/sessions")]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_run_starts_a_template_without_a_prompt(spawnctl: Spawnctl, api: CliApi) -> None:
    assert spawnctl("run", "--template", "kanban").code == 0
    (request,) = api.requests("POST", "/api/sessions")
    assert request.body == {"prompt": "", "template": "kanban", "ttl": None}


def test_run_can_have_it_made_anew(spawnctl: Spawnctl, api: CliApi) -> None:
    assert spawnctl("run", "x", "--fresh").code == 0
    (request,) = api.requests("POST", "/api/sessions")
    assert request.body == {"prompt": "x", "template": None, "ttl": None, "fresh": True}


@pytest.mark.parametrize("reused", [True, False])
def test_run_says_when_an_earlier_app_was_started_again(
    spawnctl: Spawnctl, api: CliApi, reused: bool
) -> None:
    api.script_statuses(QUEUED, {**READY, "reused": reused})
    result = spawnctl("run", "x")
    assert (result.code, result.out) == (0, LINK + "\n")
    assert ("--fresh" in result.err) is reused


def test_run_does_not_wait_for_a_change_that_somebody_asks_for_meanwhile(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    change = answers.message(1, "running")
    api.script_statuses(QUEUED, answers.changing(change, "generating", 40, "Writing"))
    result = spawnctl("run", "x")
    assert (result.code, result.out) == (0, LINK + "\n")


def test_a_session_that_fails_for_want_of_claude_is_offered_the_nearest_template(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    error = {"code": "provider_unavailable", "message": "Claude doesn't answer"}
    offer = {"template": "kanban", "title": "Kanban board"}
    api.script_statuses({**FAILED, "error": error, "offer": offer})
    result = spawnctl("run", "x")
    assert (result.code, result.out) == (1, "")
    assert "spawnctl run --template kanban" in result.err
    assert len(api.requests("POST", "/api/sessions")) == 1


def test_run_prints_the_final_status_as_json(spawnctl: Spawnctl) -> None:
    result = spawnctl("run", "x", "--json")
    assert (result.code, result.json) == (0, READY)


def test_run_without_waiting_prints_the_id(spawnctl: Spawnctl, api: CliApi) -> None:
    result = spawnctl("run", "x", "--no-wait")
    assert (result.code, result.out) == (0, SESSION + "\n")
    assert api.requests("GET", _STATUS) == []
    assert spawnctl("run", "x", "--no-wait", "--json").json == QUEUED


def test_a_session_that_fails_is_exit_code_1_with_its_story(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.script_statuses(QUEUED, FAILED)
    result = spawnctl("run", "x")
    assert (result.code, result.out) == (1, "")
    assert "app_not_ready" in result.err
    assert "KeyError: 'PORT'" in result.err
    assert "spawnctl sessions logs ses_abcdefgh" in result.err


def test_a_session_that_fails_still_has_its_status_as_json(spawnctl: Spawnctl, api: CliApi) -> None:
    api.script_statuses(FAILED)
    result = spawnctl("run", "x", "--json")
    assert (result.code, result.json) == (1, FAILED)


def test_a_session_that_somebody_ends_meanwhile_has_failed(spawnctl: Spawnctl, api: CliApi) -> None:
    api.script_statuses(QUEUED, answers.status("destroying", 100))
    result = spawnctl("run", "x")
    assert (result.code, result.out) == (1, "")
    assert "session_ended" in result.err


def test_run_gives_up_waiting_but_not_the_session(spawnctl: Spawnctl, api: CliApi) -> None:
    api.script_statuses(GENERATING)
    result = spawnctl("run", "x", "--timeout", "0s")
    assert result.code == 1
    assert "the session goes on" in result.err
    assert api.requests("DELETE", _SESSION) == []


def test_control_c_leaves_the_session_and_says_how_to_end_it(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.script_statuses(GENERATING)
    with spawnctl.start("run", "x") as process:
        assert process.stderr is not None
        first_line = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert "Writing app.js" in first_line
    assert (process.returncode, out) == (130, "")
    assert "spawnctl sessions kill ses_abcdefgh" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("status", "code", "members", "exit_code", "advice"),
    [
        (422, "prompt_empty", {"field": "prompt"}, 2, "spawnctl run"),
        (422, "ttl_out_of_range", {"min_s": 60, "max_s": 604800}, 2, "between 1 min and 7 d"),
        (422, "template_unknown", {"templates": ["kanban"]}, 2, "spawnctl templates"),
        (401, "unauthorized", {}, 3, "SPAWN_API_KEY"),
        (403, "forbidden", {}, 3, "--role operator"),
        (409, "idempotency_conflict", {}, 6, "what happened"),
        (429, "too_many_sessions", {"limit": 5, "retry_after": 30}, 6, "30 s"),
        (500, "internal", {}, 1, "api.log"),
    ],
)
def test_a_refusal_is_message_code_and_what_to_do(
    spawnctl: Spawnctl,
    api: CliApi,
    status: int,
    code: str,
    members: dict[str, Any],
    exit_code: int,
    advice: str,
) -> None:
    api.refuse("/api/sessions", status, code, "what happened", **members)
    result = spawnctl("run", "x")
    assert (result.code, result.out) == (exit_code, "")
    assert "Error: what happened" in result.err
    assert f"Code:  {code}" in result.err
    assert advice in result.err


def test_a_prompt_that_is_not_text_is_left_to_the_api_to_refuse(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.refuse("/api/sessions", 422, "prompt_not_text", "a prompt is plain text")
    result = spawnctl("run", "caf\udce9")
    assert result.code == 2
    assert "prompt_not_text" in result.err


def test_without_a_key_the_answer_says_where_keys_come_from(spawnctl: Spawnctl) -> None:
    result = spawnctl("status", SPAWN_API_KEY="")
    assert result.code == 3
    assert "operator.key" in result.err


def test_the_installations_own_key_is_used(spawnctl: Spawnctl, api: CliApi, tmp_path: Path) -> None:
    (tmp_path / "operator.key").write_text(KEY + "\n")
    assert spawnctl("status", SPAWN_API_KEY="").code == 0
    assert api.received[-1].headers["authorization"] == f"Bearer {KEY}"


def test_what_is_not_there_is_exit_code_4(spawnctl: Spawnctl) -> None:
    result = spawnctl("sessions", "show", "ses_" + "z" * 26)
    assert (result.code, result.out) == (4, "")
    assert "session_unknown" in result.err
    assert spawnctl("sessions", "show", "ses_zzzzzzzz").code == 4


@pytest.mark.parametrize("arguments", [("status",), ("run", "x"), ("pool", "--json")])
def test_without_a_control_plane_it_says_how_to_start_one(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    with socket.socket() as unused:  # bound but not listening: refuses, and stays ours
        unused.bind(("127.0.0.1", 0))
        result = Spawnctl(tmp_path, unused.getsockname()[1], key="")(*arguments)
    assert (result.code, result.out) == (5, "")
    assert "spawnctl up" in result.err


def test_a_stranger_on_the_port_is_told_from_the_control_plane(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.answer("/api/admin/overview", 200, "<h1>It works!</h1>")
    result = spawnctl("status")
    assert result.code == 5
    assert "not_spawnai" in result.err
