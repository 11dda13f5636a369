"""`spawnctl config`: values, where they come from, and never a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from orchestrator import config
from orchestrator.entrypoints.cli import local
from orchestrator.entrypoints.cli.checks import variables
from orchestrator.entrypoints.cli.commands import doctor, up
from orchestrator.entrypoints.cli.commands.config import (
    Setting,
    explain,
    printable,
    show,
)
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.findings import Level
from orchestrator.entrypoints.cli.problems import Problem

SECRET = "sk-never-to-be-seen"


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for names in all_variables().values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPAWN_STATE_DIR", str(tmp_path))


def all_variables() -> dict[str, list[str]]:
    return {field: list(config.variables(field, info)) for _, field, info in config.fields()}


def value_of(settings: config.Settings, field: str) -> Any:
    (group,) = (group for group, name, _ in config.fields() if name == field)
    return getattr(getattr(settings, group), field)


def explain_by_field(environment: dict[str, str], file: dict[str, str]) -> dict[str, Setting]:
    explained = explain(config.load(), environment, file)
    return dict(zip(all_variables(), explained, strict=True))


def test_the_environment_goes_before_the_file_and_the_file_before_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "spawn.env"
    file.write_text("SPAWN_HTTP_PORT=9001\nSPAWN_WORKERS=5\n")
    monkeypatch.setenv("SPAWN_HTTP_PORT", "9002")
    settings = explain_by_field({"SPAWN_HTTP_PORT": "9002"}, config.read_file(file))
    assert (settings["http_port"].value, settings["http_port"].source) == (9002, "environment")
    assert (settings["workers"].value, settings["workers"].source) == (5, "spawn.env")
    assert (settings["control_port"].value, settings["control_port"].source) == (8082, "default")


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "SPAWN_ANTHROPIC_API_KEY", "spawn_api_key"])
def test_each_name_that_sets_a_setting_is_the_name_that_is_shown(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, SECRET)
    settings = config.load()
    field = "api_key" if name == "spawn_api_key" else "anthropic_api_key"
    assert value_of(settings, field).get_secret_value() == SECRET
    assert explain_by_field({name: SECRET}, {})[field].name == name.upper()


def test_the_file_cannot_say_where_the_file_is(tmp_path: Path) -> None:
    file = tmp_path / "spawn.env"
    file.write_text("SPAWN_STATE_DIR=/elsewhere\n")
    settings = explain_by_field({"SPAWN_STATE_DIR": str(tmp_path)}, config.read_file(file))
    assert settings["state_dir"].value == str(tmp_path)
    assert settings["state_dir"].source == "environment"
    assert explain_by_field({}, config.read_file(file))["state_dir"].source == "default"


def test_every_setting_says_what_it_is_for() -> None:
    assert [
        name for name, setting in explain_by_field({}, {}).items() if not setting.description
    ] == []


def test_no_secret_is_shown_in_any_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret_fields = [
        field for _, field, info in config.fields() if isinstance(info.default, SecretStr)
    ]
    assert secret_fields
    for field in secret_fields:
        monkeypatch.setenv(all_variables()[field][0], SECRET)
    monkeypatch.setenv("SPAWN_DATABASE_URL", f"postgresql://spawn:{SECRET}@db/spawn")
    monkeypatch.setenv("SPAWN_REDIS_URL", f"redis://:{SECRET}@cache:6379/0")
    show(as_json=True)
    show()
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err
    assert "postgresql://spawn:***@db/spawn" in printed.out
    assert "redis://:***@cache:6379/0" in printed.out
    assert "(set, hidden)" in printed.out


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://spawn:PW@db/spawn", "postgresql://spawn:***@db/spawn"),
        ("postgresql:///db?user=u&password=PW", "postgresql:///db?user=u&password=***"),
        ("postgresql:///db?host=/run&p%61ssword=PW", "postgresql:///db?host=/run&p%61ssword=***"),
        ("postgresql:///db?PASSWORD=PW;x", "postgresql:///db?PASSWORD=***"),
        ("postgresql://u:p@db/x?sslpassword=PW", "postgresql://u:***@db/x?sslpassword=***"),
        ("postgresql://u:a/PW@db/x?sslmode=require", "postgresql://u:***@db/x?sslmode=require"),
        ("postgresql://u:a@PW@db/x", "postgresql://u:***@db/x"),
        ("postgresql://u:a?PW@db/x", "postgresql://***"),
        ("postgresql:///db?password=a@PW", "postgresql://***"),
        ("redis://:PW@cache:6379/0", "redis://:***@cache:6379/0"),
        (
            "rediss://cache?db=1&username=u&password=PW",
            "rediss://cache?db=1&username=u&password=***",
        ),
        ("https://PW@llm.example/v1", "https://***@llm.example/v1"),
        ("https://llm.example/v1?api-key=PW#PW", "https://llm.example/v1?api-key=***"),
        ("https://llm.example/v1", "https://llm.example/v1"),
        ("ssh://root@10.0.0.5", "ssh://root@10.0.0.5"),
        ("sqlite:////var/lib/spawn.db", "sqlite:////var/lib/spawn.db"),
        ("/var/lib/spawnai", "/var/lib/spawnai"),
    ],
)
def test_a_url_is_shown_without_what_opens_anything(url: str, shown: str) -> None:
    assert printable(url) == shown
    assert "PW" not in shown


@pytest.mark.parametrize("name", ["SPAWN_DATABASE_URL", "SPAWN_REDIS_URL"])
def test_neither_a_group_nor_the_error_of_a_process_shows_a_url(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    scheme = "postgresql" if "DATABASE" in name else "redis"
    monkeypatch.setenv(name, f"{scheme}://u:{SECRET}@db/x")
    assert SECRET not in f"{config.load()!r} {config.load()}"
    for wrong in (f"mysql://u:{SECRET}@db/x", f"{scheme}://u:x/{SECRET}@db/x:y"):
        monkeypatch.setenv(name, wrong)
        monkeypatch.setenv("SPAWN_HTTP_PORT", SECRET)
        with pytest.raises(ValidationError) as caught:
            config.load()
        assert SECRET not in str(caught.value)
        assert "http_port" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["mysql://x", "localhost:6379", "redis://:p/w@cache", "redis://h:x"]
)
def test_what_is_no_url_of_redis_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SPAWN_REDIS_URL", url)
    with pytest.raises(Problem) as caught:
        local.settings()
    assert "SPAWN_REDIS_URL" in caught.value.message
    assert "redis://" in caught.value.message


def test_json_holds_each_setting_once(capsys: pytest.CaptureFixture[str]) -> None:
    show(as_json=True)
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert len({setting["name"] for setting in settings}) == len(settings) == len(all_variables())
    assert {"group", "name", "value", "source", "description"} == set(settings[0])


def test_a_name_that_is_no_setting_is_named_wherever_settings_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spawn.env").write_text("SPAWN_WARM_TARGETS=5\n")
    monkeypatch.setenv("SPAWN_XYZZY", SECRET)
    monkeypatch.setenv("SPAWN_TEST_ANYTHING", "of our own tests")
    loaded = local.settings()

    show(as_json=True)
    assert json.loads(capsys.readouterr().out)["unknown"] == ["SPAWN_WARM_TARGETS", "SPAWN_XYZZY"]
    (finding,) = (check for check in doctor.run_checks(loaded) if check.name == variables.NAME)
    assert finding.level is Level.WARNING
    assert finding.fix.startswith("Perhaps you mean SPAWN_WARM_TARGET for SPAWN_WARM_TARGETS. ")
    show()
    up.print_banner(loaded)
    output = " ".join(capsys.readouterr().out.split())
    assert output.count("nothing reads SPAWN_WARM_TARGETS, SPAWN_XYZZY") == 2
    assert SECRET not in output


def test_without_a_typo_nothing_is_said_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    show()
    up.print_banner(local.settings())
    assert "nothing reads" not in capsys.readouterr().out


def test_a_wrong_setting_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAWN_HTTP_PORT", SECRET)
    monkeypatch.setenv("SPAWN_PORTS", "1-2")
    with pytest.raises(Problem) as caught:
        local.settings()
    assert caught.value.exit_code is Exit.USAGE
    assert "SPAWN_HTTP_PORT" in caught.value.message
    assert "SPAWN_PORTS" in caught.value.message
    assert SECRET not in caught.value.message


@pytest.mark.parametrize("name", [names[0] for names in all_variables().values()])
def test_no_wrong_setting_shows_its_value(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name == "SPAWN_STATE_DIR":
        return  # any text is a path
    monkeypatch.setenv(name, f"{SECRET} :/")
    message = refusal()
    assert message is None or (name in message and SECRET not in message)


def refusal() -> str | None:
    """What is wrong with the settings; None if nothing is."""
    try:
        local.settings()
    except Problem as problem:
        return problem.message
    return None


def test_the_key_is_the_configured_one_else_the_installations_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert local.api_key(config.load()) == ""
    (tmp_path / "operator.key").write_text("spk_of_this_installation\n")
    assert local.api_key(config.load()) == "spk_of_this_installation"
    monkeypatch.setenv("SPAWN_API_KEY", "spk_configured")
    assert local.api_key(config.load()) == "spk_configured"


def test_a_key_that_no_header_can_hold_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAWN_API_KEY", f"{SECRET}\nX-Evil: 1")
    with pytest.raises(Problem) as caught:
        local.api_key(config.load())
    assert caught.value.exit_code is Exit.UNAUTHORIZED
    assert SECRET not in caught.value.message


def test_an_ipv6_address_is_bracketed_in_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAWN_HTTP_ADDRESS", "::1")
    assert local.api_url(config.load()) == "http://[::1]:8080"
