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

_SESSION = f"/api/admin/sessions/{SESSION}"
_OWN_SESSION = f"/api/sessions/{SESSION}"
USER = "usr_" + "a" * 26


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


@pytest.mark.parametrize("odd", ["a\udcff", "x" * 70_000], ids=["bytes", "long"])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("sessions", "list", "--user"), 2),
        (("hosts", "show"), 4),
        (("hosts", "cordon"), 4),
    ],
    ids=str,
)
def test_an_argument_that_can_be_no_name_or_id_is_not_sent(
    spawnctl: Spawnctl, api: CliApi, arguments: tuple[str, ...], code: int, odd: str
) -> None:
    result = spawnctl(*arguments, odd)
    assert result.code == code
    assert len(result.err) < 500
    assert api.received == []


def test_a_wrong_setting_is_named(spawnctl: Spawnctl) -> None:
    result = spawnctl("status", SPAWN_WARM_TARGET="many")
    assert result.code == 2
    assert "SPAWN_WARM_TARGET" in result.err


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("status",), "/api/admin/overview"),
        (("pool",), "/api/admin/pool"),
        (("templates",), "/api/templates"),
        (("sessions", "list"), "/api/admin/sessions"),
        (("sessions", "show", "ses_abcdefgh"), _SESSION),
        (("sessions", "logs", "ses_abcdefgh"), f"{_SESSION}/logs"),
        (("sessions", "messages", "ses_abcdefgh"), f"{_OWN_SESSION}/messages"),
        (("sessions", "versions", "ses_abcdefgh"), f"{_OWN_SESSION}/versions"),
        (("keys", "list"), "/api/admin/keys"),
        (("audit",), "/api/admin/audit"),
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
    assert api.received[-1].path == path
    assert isinstance(machine.json, dict)
    people = spawnctl(*arguments)
    assert people.code == 0
    assert people.out
    assert max(map(len, people.out.splitlines())) <= 80
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", people.out) is None


def test_sessions_are_filtered_by_the_api(spawnctl: Spawnctl, api: CliApi) -> None:
    filters = ("--state", "ready", "--state", "queued", "--user", USER, "--limit", "7")
    assert spawnctl("sessions", "list", *filters).code == 0
    assert sorted(api.received[-1].query_items) == [
        ("limit", "7"),
        ("state", "queued"),
        ("state", "ready"),
        ("user", USER),
    ]


def test_a_list_stops_at_its_limit_and_says_that_there_is_more(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    page = {"sessions": answers.SESSIONS, "next": "second"}
    api.answer("/api/admin/sessions", 200, page)
    result = spawnctl("sessions", "list", "--limit", "2")
    assert result.code == 0
    assert "--all" in result.err
    assert len(api.requests("GET", "/api/admin/sessions")) == 1


@pytest.mark.parametrize(
    ("command", "path", "rows"),
    [
        (("sessions", "list"), "/api/admin/sessions", "sessions"),
        (("audit",), "/api/admin/audit", "entries"),
    ],
)
def test_all_follows_the_cursors_to_the_last_page(
    spawnctl: Spawnctl, api: CliApi, command: tuple[str, ...], path: str, rows: str
) -> None:
    row = {"sessions": answers.SESSIONS, "entries": answers.AUDIT}[rows][0]
    for cursor in ("second", "third", None):
        api.answer(path, 200, {rows: [row], "next": cursor})
    result = spawnctl(*command, "--all", "--json")
    assert result.json == {rows: [row, row, row], "next": None}
    asked = [request.query.get("cursor") for request in api.requests("GET", path)]
    assert asked == [None, "second", "third"]


def test_a_limit_over_one_page_takes_no_row_too_many(spawnctl: Spawnctl, api: CliApi) -> None:
    for cursor, count in (("second", 1000), (None, 5)):
        rows = [answers.AUDIT[0]] * count
        api.answer("/api/admin/audit", 200, {"entries": rows, "next": cursor})
    result = spawnctl("audit", "--limit", "1005", "--json")
    assert len(result.json["entries"]) == 1005
    limits = [request.query["limit"] for request in api.requests("GET", "/api/admin/audit")]
    assert limits == ["1000", "5"]


def test_revoked_keys_are_only_counted_unless_all_are_wanted(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    revoked = {**answers.KEY_ROW, "name": "old", "revoked_at": answers.KEY_ROW["created_at"]}
    for _ in range(2):
        api.answer("/api/admin/keys", 200, {"keys": [revoked, answers.KEY_ROW]})
    valid = spawnctl("keys", "list")
    assert "revoked" not in valid.out
    assert "1 more" in valid.err
    everything = spawnctl("keys", "list", "--all")
    assert "revoked" in everything.out
    assert everything.err == ""


def test_a_session_is_shown_with_its_change_its_version_and_its_cost(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    change = answers.message(3, "running", "make it \x1b[31mblue")
    changing = answers.changing(change, "generating", 62, "Writing style.css", waiting=2)
    api.answer(_SESSION, 200, answers.operator_status(changing, sandbox=None))
    result = spawnctl("sessions", "show", SESSION)
    assert result.code == 0
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert f"link {answers.LINK}" in lines
    assert "change 3: make it blue" in lines
    assert "waiting 2 more changes" in lines
    assert "version 1 of 3, from the prompt (anthropic)" in lines
    assert "cost $123.4568 for 12 calls: 13,580,245 tokens in (1,234,567 cached)," in lines


def test_what_asked_nothing_of_the_model_is_shown_without_a_cost(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.answer(f"{_OWN_SESSION}/usage", 200, answers.NO_COST)
    result = spawnctl("sessions", "show", SESSION)
    assert (result.code, "cost" in result.out) == (0, False)


def test_a_list_shows_the_link_of_an_app_that_is_being_changed(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    change = answers.message(3, "running")
    changing = answers.operator_status(answers.changing(change, "generating", 62, "Writing"))
    api.answer("/api/admin/sessions", 200, {"sessions": [changing], "next": None})
    result = spawnctl("sessions", "list", COLUMNS="160")
    row = result.out.splitlines()[2]
    assert "generating" in row
    assert "[change 3] a kanban board" in row
    assert answers.LINK in row


def test_an_app_that_has_no_version_yet_is_no_empty_table(spawnctl: Spawnctl, api: CliApi) -> None:
    api.answer(f"{_OWN_SESSION}/versions", 200, {"versions": []})
    result = spawnctl("sessions", "versions", SESSION)
    assert (result.code, result.out) == (0, "")
    assert "spawnctl sessions show ses_abcdefgh" in result.err


def test_versions_say_which_can_run_again(spawnctl: Spawnctl) -> None:
    result = spawnctl("sessions", "versions", SESSION)
    assert "never ran well" in result.err
    assert "spawnctl sessions restore ses_abcdefgh 2" in result.err


def test_a_conversation_begins_with_the_prompt_and_says_how_to_go_on(
    spawnctl: Spawnctl, api: CliApi
) -> None:
    api.script_changes((READY, []))
    result = spawnctl("sessions", "messages", SESSION)
    assert result.out.index("a kanban board") < result.out.index("Columns and cards")
    assert "spawnctl sessions message ses_abcdefgh" in result.err


def test_kill_ends_what_it_can_and_says_what_it_could_not(spawnctl: Spawnctl, api: CliApi) -> None:
    result = spawnctl("sessions", "kill", "ses_zzzzzzzz", "ses_abcdefgh")
    assert result.code == 4
    assert result.out == f"{SESSION} is ending\n"
    assert "ses_zzzzzzzz" in result.err
    assert len(api.requests("DELETE", _SESSION)) == 1


def test_extend_sends_the_time_to_live_as_it_was_typed(spawnctl: Spawnctl, api: CliApi) -> None:
    assert spawnctl("sessions", "extend", SESSION, "2h").code == 0
    assert api.requests("POST", f"{_SESSION}/extend")[0].body == {"ttl": "2h"}
    api.refuse(f"{_SESSION}/extend", 409, "session_ending", "this session has ended or is ending")
    assert spawnctl("sessions", "extend", SESSION, "2h").code == 6


def test_logs_are_followed_until_the_session_has_ended(spawnctl: Spawnctl, api: CliApi) -> None:
    ended = answers.operator_status(answers.status("destroyed", 100), sandbox=None)
    api.answer(_SESSION, 200, answers.operator_status(READY, sandbox=None))
    api.answer(f"{_SESSION}/logs", 200, {"lines": answers.LINES[:3]})
    api.answer(_SESSION, 502, "<html>Bad gateway</html>")
    api.answer(_SESSION, 200, ended)
    result = spawnctl("sessions", "logs", SESSION, "--follow", "--limit", "2", "--json")
    assert result.code == 0
    texts = [json.loads(line)["text"] for line in result.out.splitlines()]
    assert texts == ["line 1", "line 2", "line 3", "line 4"]


def test_a_new_key_is_the_last_line_of_stdout(spawnctl: Spawnctl, api: CliApi) -> None:
    result = spawnctl("keys", "create", "ci", "--tier", "free", "--role", "operator")
    assert (result.code, result.out) == (0, "spk_shownonce\n")
    (request,) = api.requests("POST", "/api/admin/keys")
    assert request.body == {"name": "ci", "tier": "free", "role": "operator"}


def test_a_key_is_revoked_by_the_beginning_of_its_id(spawnctl: Spawnctl, api: CliApi) -> None:
    assert spawnctl("keys", "revoke", "key_dddddd").code == 0
    assert len(api.requests("DELETE", f"/api/admin/keys/{answers.KEY_ROW['key_id']}")) == 1


def test_doctor_finds_problems_is_exit_code_7_and_each_has_a_fix(spawnctl: Spawnctl) -> None:
    result = spawnctl("doctor", "--json", SPAWN_DOCKER_URL="unix:///nowhere.sock")
    assert result.code == 7
    assert result.json["ok"] is False
    problems = [check for check in result.json["checks"] if check["level"] == "problem"]
    assert "Docker" in [problem["name"] for problem in problems]
    assert all(problem["fix"] for problem in problems)


def test_config_never_prints_a_secret(spawnctl: Spawnctl) -> None:
    secret = "sk-do-not-show"
    for arguments in (("config",), ("config", "--json")):
        result = spawnctl(*arguments, ANTHROPIC_API_KEY=secret)
        assert result.code == 0
        assert secret not in result.out + result.err
        assert "ANTHROPIC_API_KEY" in result.out


def test_version_is_the_packages(spawnctl: Spawnctl) -> None:
    assert re.fullmatch(r"spawnctl \d+\.\d+\.\d+\n", spawnctl("version").out)


def test_an_endpoint_without_a_model_is_named(spawnctl: Spawnctl) -> None:
    result = spawnctl("status", SPAWN_OPENAI_BASE_URL="http://localhost:1/v1")
    assert result.code == 2
    assert "SPAWN_OPENAI_MODEL" in result.err


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
    result = spawnctl("doctor", "--json")
    assert result.code == 7
    (check,) = [check for check in result.json["checks"] if check["name"] == "Claude key"]
    assert (check["level"], "refused (401)" in check["detail"]) == ("problem", True)
    assert "ANTHROPIC_API_KEY" in check["fix"]
