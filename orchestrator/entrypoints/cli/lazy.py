"""Commands whose modules are loaded only when they are asked for. Used by main and by hosts.

A table names modules and, for each, its commands with the line that the help shows of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

import typer

PACKAGE = "orchestrator.entrypoints.cli.commands"

Table = Mapping[str, Mapping[str, str]]


def words(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments without options: the command that is asked for, its subcommand, and so on."""
    return [word for word in arguments if not word.startswith("-")]


def fill(app: typer.Typer, table: Table, wanted: Sequence[str]) -> None:
    """Add every command: whole if it is the first word of `wanted`, by name otherwise. A module
    that is a group of commands gets the words after its name."""
    first, rest = (wanted[0], wanted[1:]) if wanted else (None, ())
    for name, commands in table.items():
        if first not in commands:
            for command, line in commands.items():
                app.command(command, help=line)(_stand_in)
            continue
        module = importlib.import_module(f"{PACKAGE}.{name}")
        module.register(app, *([rest] if hasattr(module, "COMMANDS") else []))


def _stand_in() -> None:
    """Only ever shown: a command that is asked for has its module loaded."""
