"""`spawnctl config`: every setting, its value, where it came from, and what it means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from dotenv import dotenv_values
from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator import config
from orchestrator.config import Settings
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.output import AsJson

FILE = "spawn.env"
_PASSWORD = re.compile(r"(?<=://)([^/@\s]*?):([^/@\s]*)(?=@)")
_HIDDEN = "(set, hidden)"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One line of the output. Safe to print: never holds a secret."""

    group: str  # of config.py
    name: str  # the variable that sets it
    value: str | int | float | bool
    source: str  # "environment", "spawn.env" or "default"
    description: str  # with its unit


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("config")(show)


def show(as_json: AsJson = False) -> None:
    """Show every setting, and where its value came from. Secrets are never shown."""
    settings = local.settings()
    path = settings.places.state_dir / FILE
    found = list(explain(settings, os.environ, file_values(path)))
    if as_json:
        output.as_json(
            {
                "file": str(path),
                "settings": [
                    {
                        "group": one.group,
                        "name": one.name,
                        "value": one.value,
                        "source": one.source,
                        "description": one.description,
                    }
                    for one in found
                ],
            }
        )
        return
    console = output.stdout()
    if console.width >= output.WIDE:
        console.print(_table(found))
    else:
        for one in found:
            console.print(
                Text.assemble((f"{one.name:28} ", "bold"), _value(one), "  ", _source(one))
            )
            console.print(Padding(Text(one.description, "bright_black"), (0, 0, 0, 4)))
    console.print(f"\nSet them in the environment, or in {path}", soft_wrap=True)


def explain(
    settings: Settings, environment: Mapping[str, str], file: Mapping[str, str]
) -> Iterator[Setting]:
    """All settings in the order of config.py. As pydantic-settings does: names in any case, the
    environment before the file, and of several names the first one that is set."""
    env_names = {name.upper() for name in environment}
    file_names = {name.upper() for name in file}
    for group, field, info in config.fields():
        names = variables(field, info)
        source, name = "default", names[0]
        # load() finds the file through this one, so the file can't set it.
        places = [("environment", env_names)]
        if field != "state_dir":
            places.append((FILE, file_names))
        for place, present in places:
            used = next((one for one in names if one in present), None)
            if used is not None:
                source, name = place, used
                break
        yield Setting(
            group=group,
            name=name,
            value=shown(getattr(getattr(settings, group), field)),
            source=source,
            description=info.description or "",
        )


def variables(field: str, info: FieldInfo) -> Sequence[str]:
    """The environment variables that set a field, first choice first."""
    if isinstance(info.validation_alias, AliasChoices):
        return [str(choice).upper() for choice in info.validation_alias.choices]
    return [f"SPAWN_{field.upper()}"]


def file_values(path: Path) -> dict[str, str]:
    """What the file sets; nothing when there is none."""
    values = dotenv_values(path) if path.is_file() else {}
    return {name: value for name, value in values.items() if value is not None}


def shown(value: object) -> str | int | float | bool:
    """A value as it may be seen: no secret, no password within a URL."""
    if isinstance(value, SecretStr):
        return _HIDDEN if value.get_secret_value() else ""
    if isinstance(value, (bool, int, float)):
        return value
    return _PASSWORD.sub(r"\1:***", str(value))


def _table(found: Sequence[Setting]) -> Table:
    made = output.table("SETTING", "VALUE", "FROM", "WHAT", wrap={"VALUE", "WHAT"})
    for one in found:
        made.add_row(one.name, _value(one), _source(one), Text(one.description, "bright_black"))
    return made


def _value(one: Setting) -> str:
    return "-" if one.value == "" else output.plain(one.value)


def _source(one: Setting) -> Text:
    return Text(one.source, "bright_black" if one.source == "default" else "green")
