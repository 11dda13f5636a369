"""`spawnctl hosts exec`: a command on a host, over a connection of its own."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from orchestrator.adapters.hosts.inventory import Entry
from orchestrator.adapters.ssh import connection as ssh
from orchestrator.adapters.ssh import streams
from orchestrator.config import Settings
from orchestrator.entrypoints.cli import local
from orchestrator.entrypoints.cli.commands.hosts import targets
from orchestrator.entrypoints.cli.commands.hosts.operating import NameArgument

_NOBODY_READS = 141  # 128 + SIGPIPE, as a shell says it


def register(group: typer.Typer) -> None:
    """Add the command."""
    settings = {"ignore_unknown_options": True, "allow_interspersed_args": False}
    group.command("exec", context_settings=settings)(run)


def run(
    name: NameArgument,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="It and its arguments.")
    ],
) -> None:
    """Run a command on a host, over a connection of its own.

    Its streams are this command's, and so is its exit code. Words reach it as they are; for a pipe
    or a variable: spawnctl hosts exec NAME -- sh -c "df -h | tail -1". It works with the control
    plane down too.
    """
    settings = local.settings()
    entry = targets.find(settings, name)
    words = command[1:] if command[:1] == ["--"] else command
    try:
        code = asyncio.run(_run(settings, entry, words))
    except BrokenPipeError:
        code = _NOBODY_READS
    raise typer.Exit(code)


async def _run(settings: Settings, entry: Entry, words: list[str]) -> int:
    address = targets.address_of(entry)
    async with ssh.connected(
        address, key=settings.places.ssh_key, pinned=entry.host_key
    ) as connection:
        return await streams.run(connection, words)
