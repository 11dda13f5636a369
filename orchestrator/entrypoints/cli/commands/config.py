"""`spawnctl config`: every setting, its value, where that comes from, and what it means."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import typer
from pydantic import SecretStr
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator import config
from orchestrator.config import Settings
from orchestrator.domain import urls
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.checks.variables import FILE, check_variables
from orchestrator.entrypoints.cli.findings import Level
from orchestrator.entrypoints.cli.output import AsJson

_HIDDEN = "(set, hidden)"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One line of the output. Safe to print: never holds a secret."""

    group: str  # its group in the settings
    name: str  # the environment variable that sets it
    value: str | int | float | bool
    source: str  # "environment", "spawn.env" or "default"
    description: str  # with its unit


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("config")(show)


def show(as_json: AsJson = False) -> None:
    """Show every setting, and where its value comes from. Secrets are never shown."""
    settings = local.settings()
    path = settings.places.state_dir / FILE
    explained = list(explain(settings, os.environ, config.read_file(path)))
    if as_json:
        output.print_json(
            {
                "file": str(path),
                "unknown": config.unknown_variables(path),
                "settings": [
                    {
                        "group": setting.group,
                        "name": setting.name,
                        "value": setting.value,
                        "source": setting.source,
                        "description": setting.description,
                    }
                    for setting in explained
                ],
            }
        )
        return
    console = output.stdout()
    if console.width >= output.WIDE:
        console.print(_table(explained))
    else:
        for setting in explained:
            name = (f"{setting.name:28} ", "bold")
            console.print(Text.assemble(name, _value(setting), "  ", _source(setting)))
            console.print(Padding(Text(setting.description, "bright_black"), (0, 0, 0, 4)))
    unknown = check_variables(settings)
    if unknown.level is not Level.OK:
        console.print(f"\n[yellow]{unknown.detail}. {unknown.fix}", soft_wrap=True)
    console.print(f"\nSet them in the environment, or in {path}", soft_wrap=True)


def explain(
    settings: Settings, environment: Mapping[str, str], file: Mapping[str, str]
) -> Iterator[Setting]:
    """All settings, in the order of their groups. Finds the source as pydantic-settings does: names
    match in any case, the environment goes before the file, and the first name that is set wins."""
    env_names = {name.upper() for name in environment}
    file_names = {name.upper() for name in file}
    for group, field, info in config.fields():
        names = config.variables(field, info)
        source, name = "default", names[0]
        sources = [("environment", env_names)]
        # load() finds the file through state_dir, so the file can't set it.
        if field != "state_dir":
            sources.append((FILE, file_names))
        for candidate, names_set in sources:
            used = next((variable for variable in names if variable in names_set), None)
            if used is not None:
                source, name = candidate, used
                break
        yield Setting(
            group=group,
            name=name,
            value=printable(getattr(getattr(settings, group), field)),
            source=source,
            description=info.description or "",
        )


def printable(value: object) -> str | int | float | bool:
    """The value without secrets: neither a secret nor what a URL holds of them."""
    if isinstance(value, SecretStr):
        return _HIDDEN if value.get_secret_value() else ""
    if isinstance(value, (bool, int, float)):
        return value
    return urls.without_secrets(str(value))


def _table(settings: Sequence[Setting]) -> Table:
    table = output.table("SETTING", "VALUE", "FROM", "WHAT", wrap={"VALUE", "WHAT"})
    for setting in settings:
        description = Text(setting.description, "bright_black")
        table.add_row(setting.name, _value(setting), _source(setting), description)
    return table


def _value(setting: Setting) -> str:
    return "-" if setting.value == "" else output.plain(setting.value)


def _source(setting: Setting) -> Text:
    return Text(setting.source, "bright_black" if setting.source == "default" else "green")
