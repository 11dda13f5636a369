"""The tables of commands, and what each command loads."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.entrypoints.cli import exits, lazy, main
from orchestrator.entrypoints.cli.commands.hosts.group import COMMANDS as HOST_COMMANDS
from orchestrator.entrypoints.cli.commands.sessions.logs import new_lines

_TABLES = [main.COMMANDS, HOST_COMMANDS]


@pytest.mark.parametrize(
    ("table", "module"), [(table, module) for table in _TABLES for module in sorted(table)]
)
def test_the_help_of_spawnctl_says_what_the_command_itself_says(
    table: lazy.Table, module: str
) -> None:
    app = typer.Typer()
    importlib.import_module(f"{lazy.PACKAGE}.{module}").register(app)
    registered = {
        command.name or command.callback.__name__: str(command.help or command.callback.__doc__)
        for command in app.registered_commands
        if command.callback is not None
    }
    groups = {
        str(group.name): str(group.typer_instance.info.help)
        for group in app.registered_groups
        if group.typer_instance is not None
    }
    first_lines = {name: text.splitlines()[0] for name, text in {**registered, **groups}.items()}
    assert set(first_lines) == set(table[module])
    for name, line in table[module].items():
        assert first_lines[name].startswith(line)


def test_help_lists_every_command_and_every_exit_code() -> None:
    result = CliRunner().invoke(main.build(["--help"]), ["--help"])
    assert result.exit_code == 0
    for commands in main.COMMANDS.values():
        for name in commands:
            assert f" {name} " in result.output
    for code, meaning in exits.MEANINGS.items():
        assert f"{code.value} {meaning}" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], ["pydantic", "httpx2", "docker", "sqlalchemy", "orchestrator.config"]),
        (["version"], ["pydantic_settings", "httpx2", "docker", "sqlalchemy"]),
        (["status", "--help"], ["docker", "sqlalchemy", "redis", "fastapi"]),
        (["hosts", "--help"], ["httpx2", "asyncssh", "docker", "orchestrator.config"]),
        (["hosts", "list", "--help"], ["asyncssh", "docker", "sqlalchemy", "paramiko"]),
        (["doctor", "--help"], ["redis", "fastapi"]),
    ],
)
def test_a_command_loads_nothing_that_it_does_not_need(
    arguments: list[str], unwanted: list[str]
) -> None:
    script = (
        "import sys\n"
        "from orchestrator.entrypoints.cli import main\n"
        "try:\n"
        "    main.main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"print('loaded', [name for name in {unwanted!r} if name in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.splitlines()[-1] == "loaded []"


def lines(*texts: str) -> list[dict[str, str]]:
    return [{"at": "2030-01-02T03:04:05+00:00", "text": text} for text in texts]


@pytest.mark.parametrize(
    ("previous", "current", "expected"),
    [
        ("", "", ""),
        ("", "ab", "ab"),
        ("ab", "ab", ""),
        ("ab", "abc", "c"),
        ("abc", "cd", "d"),
        ("abc", "de", "de"),
        ("aa", "aaa", "a"),
    ],
)
def test_following_prints_each_line_once_also_when_the_window_moves(
    previous: str, current: str, expected: str
) -> None:
    assert new_lines(lines(*previous), lines(*current)) == lines(*expected)
