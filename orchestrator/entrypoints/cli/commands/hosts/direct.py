"""`spawnctl hosts direct`: break-glass. Needs the inventory file and our key, and nothing else."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.adapters.hosts.break_glass import Direct, Seen
from orchestrator.config import Settings
from orchestrator.entrypoints.cli import local, names, output
from orchestrator.entrypoints.cli.commands.hosts import targets
from orchestrator.entrypoints.cli.commands.hosts.operating import NameArgument
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.problems import Problem


class Action(enum.StrEnum):
    """What to do there."""

    PS = "ps"  # list our sandboxes
    LOGS = "logs"  # of one: what it printed
    RM = "rm"  # one: kill and remove it


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command()(direct)


def direct(
    name: NameArgument,
    action: Annotated[Action, typer.Argument(help="List sandboxes, read one's log, remove one.")],
    sandbox: Annotated[
        str, typer.Argument(metavar="[SANDBOX]", help="A sandbox's id, or its beginning.")
    ] = "",
    tail: Annotated[int, typer.Option(min=1, help="Lines of the log.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Reach a host's Docker with the daemon, Redis and the database all down.

    From the inventory file that the daemon last wrote. What is removed here the control plane finds
    missing once it runs again, and the session comes back elsewhere.
    """
    settings = local.settings()
    if (action is Action.PS) == bool(sandbox):
        needs = "takes no sandbox" if action is Action.PS else "needs a sandbox"
        raise Problem(
            Exit.USAGE, "bad_arguments", f"{action} {needs}", f"spawnctl hosts direct {name} ps"
        )
    with _reach(settings, name) as host:
        found = host.sandboxes()
        if action is Action.PS:
            _list(found, as_json=as_json)
            return
        one = _resolved(sandbox, found, name)
        if action is Action.LOGS:
            _print_log(host.logs(one, tail), as_json=as_json)
            return
        host.remove(one)
    if as_json:
        output.as_json({"removed": one})
    else:
        print(f"{one} is removed")


def _reach(settings: Settings, name: str) -> Direct:
    entry = targets.in_inventory(settings, name)
    if not entry.docker_url.startswith("ssh://"):
        raise targets.is_local(name, "docker ps --filter label=ai.spawn.instance")
    return Direct(
        targets.address_of(entry),
        key=settings.places.ssh_key,
        pinned=entry.host_key,
        instance=StateFolder(settings.places.state_dir).instance(),
    )


def _resolved(text: str, found: Sequence[Seen], name: str) -> str:
    """A sandbox that is there and ours: another installation's have names like ours. Raises
    Problem."""
    known = [seen.sandbox_id for seen in found]
    listing = f"spawnctl hosts direct {output.plain(name)} ps"
    one = names.resolve(text, "sbx", lambda: known, listing)
    if one in known:
        return one
    raise Problem(
        Exit.NOT_FOUND,
        "sandbox_unknown",
        f"no sandbox {one} of this installation is there",
        f"See them: {listing}",
    )


def _list(found: Sequence[Seen], *, as_json: bool) -> None:
    if as_json:
        output.as_json({"sandboxes": [asdict(one) for one in found]})
        return
    if not found:
        output.stderr().print("No sandboxes of this installation are there.")
        return
    made = output.table("SANDBOX", "STATE", "STATUS", "PORT", "AGE", wrap={"STATUS"})
    for one in found:
        made.add_row(
            output.short(one.sandbox_id),
            output.plain(one.state),
            output.plain(one.status),
            " ".join(map(str, one.ports)) or "-",
            output.since(datetime.fromtimestamp(one.created_s, UTC).isoformat()),
        )
    output.stdout().print(made)


def _print_log(text: str, *, as_json: bool) -> None:
    if as_json:
        output.as_json({"lines": text.splitlines()})
    else:
        print(output.lines(text), end="" if text.endswith("\n") else "\n")
