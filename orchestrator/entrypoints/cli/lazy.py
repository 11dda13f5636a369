"""Loads a command's module only when the user asks for that command. Used by `main` and `hosts`.

A table maps each module to its commands, and each command to the line that the help shows.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

import typer

PACKAGE = "orchestrator.entrypoints.cli.commands"

Table = Mapping[str, Mapping[str, str]]


def command_words(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments without options: the command's name, its subcommand's, and so on."""
    return [word for word in arguments if not word.startswith("-")]


def add_commands(app: typer.Typer, table: Table, words: Sequence[str]) -> None:
    """Add every command of the table. Load the module of the one that `words` begins with; add the
    others with their name and help line only. A module that has a table too gets the other words.
    """
    command, subcommands = (words[0], words[1:]) if words else (None, ())
    for module_name, commands in table.items():
        if command not in commands:
            for name, help_line in commands.items():
                app.command(name, help=help_line)(_placeholder)
            continue
        module = importlib.import_module(f"{PACKAGE}.{module_name}")
        module.register(app, *([subcommands] if hasattr(module, "COMMANDS") else []))


def _placeholder() -> None:
    """Stands for a command in the help. Never runs: a command that runs has its module loaded."""
