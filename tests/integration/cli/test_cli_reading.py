"""spawnctl's other commands: the real process against a stand-in for the API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.cli import answers
from tests.fakes.cli.answers import READY, SESSION
from tests.fakes.cli.api import CliApi
from tests.integration.cli.world import Spawnctl

_ONE = f"/api/admin/sessions/{SESSION}"
_OWN = f"/api/sessions/{SESSION}"


@pytest.fixture
def api() -> Iterator[CliApi]:
    with CliApi() as server:
        yield server


@pytest.fixture
def spawnctl(api: CliApi, tmp_path: Path) -> Spawnctl:
    return Spawnctl(tmp_path, api.port)


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
        (("sessions", "messages", "ses_abcdefgh"), f"{_OWN}/messages"),
        (("sessions", "versions", "ses_abcdefgh"), f"{_OWN}/versions"),
        (("keys", "list"), "/api/admin/keys"),
        (("hosts", "list"), "/api/admin/hosts"),
        (("hosts", "show", "paris-1"), "/api/admin/hosts/paris-1"),
        (("usage",), "/api/admin/usage"),
        (("usage", "--by", "session", "--days", "7"), "/api/admin/usage"),
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


def test_a_session_is_shown_with_its_change_its_version_and_its_cost(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    asked = answers.message(3, "running", "make it \x1b[31mblue")
    changing = answers.changing(asked, "generating", 62, "Writing style.css", waiting=2)
    api.answer(_ONE, 200, answers.operator_status(changing, sandbox=None))
    done = spawnctl("sessions", "show", SESSION)
    assert done.code == 0
    said = [" ".join(line.split()) for line in done.out.splitlines()]
    assert f"link {answers.LINK}" in said
    assert "change 3: make it blue" in said
    assert "waiting 2 more changes" in said
    assert "version 1 of 3, from the prompt (anthropic)" in said
    assert "cost $123.4568 for 12 calls: 13,580,245 tokens in (1,234,567 cached)," in said


def test_what_asked_nothing_of_the_model_is_shown_without_a_cost(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.answer(f"{_OWN}/usage", 200, answers.NO_COST)
    done = spawnctl("sessions", "show", SESSION)
    assert (done.code, "cost" in done.out) == (0, False)


def test_a_list_shows_the_link_of_an_app_that_is_being_changed(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    asked = answers.message(3, "running")
    changing = answers.operator_status(answers.changing(asked, "generating", 62, "Writing"))
    api.answer("/api/admin/sessions", 200, {"sessions": [changing]})
    done = spawnctl("sessions", "list", COLUMNS="160")
    row = done.out.splitlines()[2]
    assert "generating" in row
    assert "[change 3] a kanban board" in row
    assert answers.LINK in row


def test_an_app_that_has_no_version_yet_is_no_empty_table(spawnctl: Spawnctl, api: CliApi) -> None:
    api.answer(f"{_OWN}/versions", 200, {"versions": []})
    done = spawnctl("sessions", "versions", SESSION)
    assert (done.code, done.out) == (0, "")
    assert "spawnctl sessions show ses_abcdefgh" in done.err


def test_versions_say_which_can_run_again(spawnctl: Spawnctl) -> None:
    done = spawnctl("sessions", "versions", SESSION)
    assert "never ran well" in done.err
    assert "spawnctl sessions restore ses_abcdefgh 2" in done.err


def test_a_conversation_begins_with_the_prompt_and_says_how_to_go_on(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.tell_changes((READY, []))
    done = spawnctl("sessions", "messages", SESSION)
    assert done.out.index("a kanban board") < done.out.index("Columns and cards")
    assert "spawnctl sessions message ses_abcdefgh" in done.err


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
    ended = answers.operator_status(answers.status("destroyed", 100), sandbox=None)
    api.answer(_ONE, 200, answers.operator_status(READY, sandbox=None))
    api.answer(f"{_ONE}/logs", 200, {"lines": answers.LINES[:3]})
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
    assert len(api.requests("DELETE", f"/api/admin/keys/{answers.KEY_ROW['key_id']}")) == 1


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


def test_an_endpoint_without_a_model_is_named(spawnctl: Spawnctl) -> None:
    done = spawnctl("status", SPAWN_OPENAI_BASE_URL="http://localhost:1/v1")
    assert done.code == 2
    assert "SPAWN_OPENAI_MODEL" in done.err


def test_doctor_names_the_setting_whose_key_a_provider_refused(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    refused = {
        "ok": False,
        "detail": "ANTHROPIC_API_KEY was refused (401): invalid x-api-key",
        "settings": ["ANTHROPIC_API_KEY"],
    }
    for _ in range(3):  # as often as doctor may ask
        api.answer("/ready", 200, {"ready": True, "checks": {"claude": refused}})
    done = spawnctl("doctor", "--json")
    assert done.code == 7
    (found,) = [one for one in done.json["checks"] if one["name"] == "Claude key"]
    assert (found["level"], "refused (401)" in found["detail"]) == ("problem", True)
    assert "ANTHROPIC_API_KEY" in found["fix"]
