"""The real spawnctl, as a process, against a stand-in for the API (`tests/fakes/cli_api.py`)."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import cli_api
from tests.fakes.cli_api import FAILED, GENERATING, KEY, LINK, QUEUED, READY, SESSION, CliApi

ROOT = Path(__file__).parents[2]
_DEADLINE_S = 60
_STATUS = f"/api/status/{SESSION}"
_ONE = f"/api/admin/sessions/{SESSION}"


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a finished spawnctl left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Spawnctl = Callable[..., Done]


@pytest.fixture
def api() -> Iterator[CliApi]:
    with CliApi() as server:
        yield server


@pytest.fixture
def environment(api: CliApi, tmp_path: Path) -> dict[str, str]:
    return clean_environment(tmp_path, api.port) | {"SPAWN_API_KEY": KEY}


@pytest.fixture
def spawnctl(environment: dict[str, str]) -> Spawnctl:
    def run(*arguments: str, **changes: str) -> Done:
        return run_spawnctl(arguments, environment | changes)

    return run


def clean_environment(state_dir: Path, port: int) -> dict[str, str]:
    """Nothing of this machine's settings, and a state folder of the test's own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("SPAWN_", "ANTHROPIC_"))
    }
    ours = {"SPAWN_STATE_DIR": str(state_dir), "SPAWN_HTTP_PORT": str(port)}
    # A proxy of the environment is not for the control plane of this machine.
    return kept | ours | {"COLUMNS": "80", "HTTP_PROXY": "http://127.0.0.1:1"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator.entrypoints.cli.main", *arguments]


def run_spawnctl(arguments: tuple[str, ...], environment: dict[str, str]) -> Done:
    done = subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert KEY not in done.stdout + done.stderr
    return Done(code=done.returncode, out=done.stdout, err=done.stderr)


def test_run_shows_progress_on_stderr_and_prints_the_link_alone(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    done = spawnctl("run", "a kanban board", "--ttl", "2h")
    assert (done.code, done.out) == (0, LINK + "\n")
    assert done.err.index("queued") < done.err.index("Writing app.js") < done.err.index("Ready")
    (made,) = api.requests("POST", "/api/sessions")
    assert made.body == {"prompt": "a kanban board", "template": None, "ttl": "2h"}
    assert made.headers["authorization"] == f"Bearer {KEY}"


def test_run_waits_by_long_poll_and_lets_the_api_say_that_nothing_changed(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    assert spawnctl("run", "x").code == 0
    polls = api.requests("GET", _STATUS)
    assert {poll.query["wait"] for poll in polls} == {"25"}
    assert all("if-none-match" in poll.headers for poll in polls)
    assert api.not_modified > 0


def test_run_survives_an_api_that_restarts(spawnctl: Spawnctl, api: CliApi) -> None:
    api.answer("/api/sessions", 502, "<html>Bad gateway</html>")
    api.answer(_STATUS, 502, "<html>Bad gateway</html>")
    api.refuse(_STATUS, 503, "queue_unavailable", "Redis does not answer", retry_after=1)
    done = spawnctl("run", "a kanban board")
    assert (done.code, done.out) == (0, LINK + "\n")
    keys = [post.headers["idempotency-key"] for post in api.requests("POST", "/api/sessions")]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_run_starts_a_template_without_a_prompt(spawnctl: Spawnctl, api: CliApi) -> None:
    assert spawnctl("run", "--template", "kanban").code == 0
    (made,) = api.requests("POST", "/api/sessions")
    assert made.body == {"prompt": "", "template": "kanban", "ttl": None}


def test_run_prints_the_final_status_as_json(spawnctl: Spawnctl) -> None:
    done = spawnctl("run", "x", "--json")
    assert (done.code, done.json) == (0, READY)


def test_run_without_waiting_prints_the_id(spawnctl: Spawnctl, api: CliApi) -> None:
    done = spawnctl("run", "x", "--no-wait")
    assert (done.code, done.out) == (0, SESSION + "\n")
    assert api.requests("GET", _STATUS) == []
    assert spawnctl("run", "x", "--no-wait", "--json").json == QUEUED


def test_a_session_that_fails_is_exit_code_1_with_its_story(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.tell(QUEUED, FAILED)
    done = spawnctl("run", "x")
    assert (done.code, done.out) == (1, "")
    assert "app_not_ready" in done.err
    assert "KeyError: 'PORT'" in done.err
    assert "spawnctl sessions logs ses_abcdefgh" in done.err


def test_a_session_that_fails_still_has_its_status_as_json(spawnctl: Spawnctl, api: CliApi) -> None:
    api.tell(FAILED)
    done = spawnctl("run", "x", "--json")
    assert (done.code, done.json) == (1, FAILED)


def test_a_session_that_somebody_ends_meanwhile_has_failed(spawnctl: Spawnctl, api: CliApi) -> None:
    api.tell(QUEUED, cli_api.status("destroying", 100))
    done = spawnctl("run", "x")
    assert (done.code, done.out) == (1, "")
    assert "session_ended" in done.err


def test_run_gives_up_waiting_but_not_the_session(spawnctl: Spawnctl, api: CliApi) -> None:
    api.tell(GENERATING)
    done = spawnctl("run", "x", "--timeout", "0s")
    assert done.code == 1
    assert "the session goes on" in done.err
    assert api.requests("DELETE", _ONE) == []


def test_control_c_leaves_the_session_and_says_how_to_end_it(
    api: CliApi, environment: dict[str, str]
) -> None:
    api.tell(GENERATING)
    process = subprocess.Popen(
        command("run", "x"),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=_DEADLINE_S)
    assert "Writing app.js" in first
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
    done = spawnctl("run", "x")
    assert (done.code, done.out) == (exit_code, "")
    assert "Error: what happened" in done.err
    assert f"Code:  {code}" in done.err
    assert advice in done.err


def test_a_prompt_that_is_not_text_is_left_to_the_api_to_refuse(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.refuse("/api/sessions", 422, "prompt_not_text", "a prompt is plain text")
    done = spawnctl("run", "caf\udce9")
    assert done.code == 2
    assert "prompt_not_text" in done.err


def test_without_a_key_the_answer_says_where_keys_come_from(spawnctl: Spawnctl) -> None:
    done = spawnctl("status", SPAWN_API_KEY="")
    assert done.code == 3
    assert "operator.key" in done.err


def test_the_installations_own_key_is_used(spawnctl: Spawnctl, api: CliApi, tmp_path: Path) -> None:
    (tmp_path / "operator.key").write_text(KEY + "\n")
    assert spawnctl("status", SPAWN_API_KEY="").code == 0
    assert api.seen[-1].headers["authorization"] == f"Bearer {KEY}"


def test_what_is_not_there_is_exit_code_4(spawnctl: Spawnctl) -> None:
    done = spawnctl("sessions", "show", "ses_" + "z" * 26)
    assert (done.code, done.out) == (4, "")
    assert "session_unknown" in done.err
    assert spawnctl("sessions", "show", "ses_zzzzzzzz").code == 4


@pytest.mark.parametrize("arguments", [("status",), ("run", "x"), ("pool", "--json")])
def test_without_a_control_plane_it_says_how_to_start_one(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    with socket.socket() as nobody:  # bound and not listening: refused, and nobody else's
        nobody.bind(("127.0.0.1", 0))
        environment = clean_environment(tmp_path, nobody.getsockname()[1])
        done = run_spawnctl(arguments, environment)
    assert (done.code, done.out) == (5, "")
    assert "spawnctl up" in done.err


def test_a_stranger_on_the_port_is_told_from_the_control_plane(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.answer("/api/admin/overview", 200, "<h1>It works!</h1>")
    done = spawnctl("status")
    assert done.code == 5
    assert "not_spawnai" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("sessions", "list", "--state", "sleeping"),
        ("run", "x", "--timeout", "?"),
    ],
)
def test_wrong_arguments_are_exit_code_2(spawnctl: Spawnctl, arguments: tuple[str, ...]) -> None:
    assert spawnctl(*arguments).code == 2


def test_a_wrong_setting_is_named(spawnctl: Spawnctl) -> None:
    done = spawnctl("status", SPAWN_WARM_TARGET="many")
    assert done.code == 2
    assert "SPAWN_WARM_TARGET" in done.err


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("status",), "/api/admin/overview"),
        (("pool",), "/api/admin/pool"),
        (("templates",), "/api/templates"),
        (("sessions", "list"), "/api/admin/sessions"),
        (("sessions", "show", "ses_abcdefgh"), _ONE),
        (("sessions", "logs", "ses_abcdefgh"), f"{_ONE}/logs"),
        (("keys", "list"), "/api/admin/keys"),
    ],
)
def test_every_reading_command_has_what_the_api_said_as_json_and_80_columns_for_people(
    spawnctl: Spawnctl, api: CliApi, arguments: tuple[str, ...], path: str
) -> None:
    machine = spawnctl(*arguments, "--json")
    assert machine.code == 0
    assert api.seen[-1].path == path
    assert isinstance(machine.json, dict)
    people = spawnctl(*arguments)
    assert people.code == 0
    assert people.out
    assert max(map(len, people.out.splitlines())) <= 80
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", people.out) is None


def test_sessions_are_filtered_by_the_api(spawnctl: Spawnctl, api: CliApi) -> None:
    assert spawnctl("sessions", "list", "--state", "ready", "--limit", "7").code == 0
    assert api.seen[-1].query == {"state": "ready", "limit": "7"}


def test_kill_ends_what_it_can_and_says_what_it_could_not(spawnctl: Spawnctl, api: CliApi) -> None:
    done = spawnctl("sessions", "kill", "ses_zzzzzzzz", "ses_abcdefgh")
    assert done.code == 4
    assert done.out == f"{SESSION} is ending\n"
    assert "ses_zzzzzzzz" in done.err
    assert len(api.requests("DELETE", _ONE)) == 1


def test_extend_sends_the_time_to_live_as_it_was_typed(spawnctl: Spawnctl, api: CliApi) -> None:
    assert spawnctl("sessions", "extend", SESSION, "2h").code == 0
    assert api.requests("POST", f"{_ONE}/extend")[0].body == {"ttl": "2h"}
    api.refuse(f"{_ONE}/extend", 409, "session_ending", "this session has ended or is ending")
    assert spawnctl("sessions", "extend", SESSION, "2h").code == 6


def test_logs_are_followed_until_the_session_has_ended(spawnctl: Spawnctl, api: CliApi) -> None:
    ended = cli_api.operator_status(cli_api.status("destroyed", 100), sandbox=None)
    api.answer(_ONE, 200, cli_api.operator_status(READY, sandbox=None))
    api.answer(f"{_ONE}/logs", 200, {"lines": cli_api.LINES[:3]})
    api.answer(_ONE, 502, "<html>Bad gateway</html>")
    api.answer(_ONE, 200, ended)
    done = spawnctl("sessions", "logs", SESSION, "--follow", "--limit", "2", "--json")
    assert done.code == 0
    texts = [json.loads(line)["text"] for line in done.out.splitlines()]
    assert texts == ["line 1", "line 2", "line 3", "line 4"]


def test_a_new_key_is_the_last_line_of_stdout(spawnctl: Spawnctl, api: CliApi) -> None:
    done = spawnctl("keys", "create", "ci", "--tier", "free", "--role", "operator")
    assert (done.code, done.out) == (0, "spk_shownonce\n")
    (made,) = api.requests("POST", "/api/admin/keys")
    assert made.body == {"name": "ci", "tier": "free", "role": "operator"}


def test_a_key_is_revoked_by_the_beginning_of_its_id(spawnctl: Spawnctl, api: CliApi) -> None:
    assert spawnctl("keys", "revoke", "key_dddddd").code == 0
    assert len(api.requests("DELETE", f"/api/admin/keys/{cli_api.KEY_ROW['key_id']}")) == 1


def test_doctor_finds_problems_is_exit_code_7_and_each_has_a_fix(spawnctl: Spawnctl) -> None:
    done = spawnctl("doctor", "--json", SPAWN_DOCKER_URL="unix:///nowhere.sock")
    assert done.code == 7
    assert done.json["ok"] is False
    bad = [one for one in done.json["checks"] if one["level"] == "problem"]
    assert "Docker" in [one["name"] for one in bad]
    assert all(one["fix"] for one in bad)


def test_config_never_prints_a_secret(spawnctl: Spawnctl) -> None:
    secret = "sk-do-not-show"
    for arguments in (("config",), ("config", "--json")):
        done = spawnctl(*arguments, ANTHROPIC_API_KEY=secret)
        assert done.code == 0
        assert secret not in done.out + done.err
        assert "ANTHROPIC_API_KEY" in done.out


def test_version_is_the_packages(spawnctl: Spawnctl) -> None:
    assert re.fullmatch(r"spawnctl \d+\.\d+\.\d+\n", spawnctl("version").out)
