"""`spawnctl hosts direct`: for emergencies. Needs nothing but the inventory file and our key."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.adapters.hosts.break_glass import DirectDocker, ListedSandbox
from orchestrator.config import Settings
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.arguments import HostArgument, resolve_id
from orchestrator.entrypoints.cli.commands.hosts import targets
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.problems import Problem


class Action(enum.StrEnum):
    """What to do on the host."""

    PS = "ps"  # list our sandboxes
    LOGS = "logs"  # print what one sandbox printed
    RM = "rm"  # kill and remove one sandbox


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command()(direct)


def direct(
    name: HostArgument,
    action: Annotated[Action, typer.Argument(help="List sandboxes, read one's log, remove one.")],
    sandbox: Annotated[
        str, typer.Argument(metavar="[SANDBOX]", help="A sandbox's id, or its first characters.")
    ] = "",
    tail: Annotated[int, typer.Option(min=1, help="Lines of the log.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Reach a host's Docker while the daemon, Redis and the database are all down.

    Finds the host in the inventory file that the daemon wrote last. If you remove a sandbox, the
    control plane notices it once it runs again, and the session comes back elsewhere.
    """
    settings = local.settings()
    if (action is Action.PS) == bool(sandbox):
        needs = "takes no sandbox" if action is Action.PS else "needs a sandbox"
        raise Problem(
            Exit.USAGE, "bad_arguments", f"{action} {needs}", f"spawnctl hosts direct {name} ps"
        )
    with _connect(settings, name) as host:
        sandboxes = host.sandboxes()
        if action is Action.PS:
            _print_sandboxes(sandboxes, as_json=as_json)
            return
        sandbox_id = _resolve_sandbox(sandbox, sandboxes, name)
        if action is Action.LOGS:
            _print_log(host.logs(sandbox_id, tail), as_json=as_json)
            return
        host.remove(sandbox_id)
    if as_json:
        output.print_json({"removed": sandbox_id})
    else:
        print(f"{sandbox_id} is removed")


def _connect(settings: Settings, name: str) -> DirectDocker:
    entry = targets.find_in_inventory(settings, name)
    if not entry.docker_url.startswith("ssh://"):
        raise targets.host_is_local(name, "docker ps --filter label=ai.spawn.instance")
    return DirectDocker(
        targets.address_of(entry),
        key=settings.places.ssh_key,
        pinned=entry.host_key,
        instance=StateFolder(settings.places.state_dir).instance(),
    )


def _resolve_sandbox(text: str, sandboxes: Sequence[ListedSandbox], host_name: str) -> str:
    """The id of a sandbox of this installation on the host. Refuses any other id, because the
    sandboxes of another installation have the same kind of names. Raises Problem."""
    sandbox_ids = [sandbox.sandbox_id for sandbox in sandboxes]
    list_command = f"spawnctl hosts direct {output.plain(host_name)} ps"
    sandbox_id = resolve_id(text, "sbx", lambda: sandbox_ids, list_command)
    if sandbox_id in sandbox_ids:
        return sandbox_id
    raise Problem(
        Exit.NOT_FOUND,
        "sandbox_unknown",
        f"no sandbox {sandbox_id} of this installation is there",
        f"See them: {list_command}",
    )


def _print_sandboxes(sandboxes: Sequence[ListedSandbox], *, as_json: bool) -> None:
    if as_json:
        output.print_json({"sandboxes": [asdict(sandbox) for sandbox in sandboxes]})
        return
    if not sandboxes:
        output.stderr().print("No sandboxes of this installation are there.")
        return
    table = output.table("SANDBOX", "STATE", "STATUS", "PORT", "AGE", wrap={"STATUS"})
    for sandbox in sandboxes:
        table.add_row(
            output.short_id(sandbox.sandbox_id),
            output.plain(sandbox.state),
            output.plain(sandbox.status),
            " ".join(map(str, sandbox.ports)) or "-",
            output.age(datetime.fromtimestamp(sandbox.created_s, UTC).isoformat()),
        )
    output.stdout().print(table)


def _print_log(text: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json({"lines": text.splitlines()})
    else:
        print(output.plain_lines(text), end="" if text.endswith("\n") else "\n")
