"""`spawnctl hosts exec`: runs a command on a host, over a connection of its own."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from orchestrator.adapters.hosts.inventory import Entry
from orchestrator.adapters.ssh import connection as ssh
from orchestrator.adapters.ssh import streams
from orchestrator.config import Settings
from orchestrator.entrypoints.cli import local
from orchestrator.entrypoints.cli.arguments import HostArgument
from orchestrator.entrypoints.cli.commands.hosts import targets

_BROKEN_PIPE = 141  # 128 + SIGPIPE, as shells report it


def register(group: typer.Typer) -> None:
    """Add the command."""
    context_settings = {"ignore_unknown_options": True, "allow_interspersed_args": False}
    group.command("exec", context_settings=context_settings)(run)


def run(
    name: HostArgument,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="The command and its arguments.")
    ],
) -> None:
    """Run a command on a host, over a connection of its own.

    Passes on stdin, stdout, stderr and the exit code. The command gets its arguments unchanged; for
    a pipe or a variable: spawnctl hosts exec NAME -- sh -c "df -h | tail -1". Works while the
    control plane is down too.
    """
    settings = local.settings()
    entry = targets.find_host(settings, name)
    argv = command[1:] if command[:1] == ["--"] else command
    try:
        exit_code = asyncio.run(_run(settings, entry, argv))
    except BrokenPipeError:
        exit_code = _BROKEN_PIPE
    raise typer.Exit(exit_code)


async def _run(settings: Settings, entry: Entry, argv: list[str]) -> int:
    address = targets.address_of(entry)
    async with ssh.open_connection(
        address, key=settings.places.ssh_key, pinned=entry.host_key
    ) as connection:
        return await streams.run_attached(connection, argv)
