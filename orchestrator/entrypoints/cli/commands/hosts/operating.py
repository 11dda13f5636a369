"""`spawnctl hosts list|show|cordon|uncordon|drain|remove`: hosts that are in the pool."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchestrator.domain import duration
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.commands.hosts import waits
from orchestrator.entrypoints.cli.commands.hosts.paths import ALL, one
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views import hosts

Json = dict[str, Any]

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A host's name.")]
TimeoutOption = Annotated[str, typer.Option(help="Wait at most so long, e.g. 10m.")]

_LEAVE_S = 120.0  # sandboxes of a host that leaves are looked at within seconds

_STUCK = (
    "what doesn't move has no host to go to: the others are full, cordoned, or lack the region or"
    " the labels that it asks for"
)


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command("list")(list_them)
    group.command()(show)
    group.command()(cordon)
    group.command()(uncordon)
    group.command()(drain)
    group.command()(remove)


def list_them(as_json: AsJson = False) -> None:
    """List hosts: their state, their link, their room."""
    with Api.of(local.settings()) as api:
        found = api.get(ALL)
    if as_json:
        output.as_json(found)
        return
    if not found["hosts"]:
        output.stderr().print("No hosts. Add one: spawnctl hosts add ssh://root@ADDRESS --name N")
        return
    console = output.stdout()
    console.print(hosts.listing(found["hosts"], wide=console.width >= output.WIDE))


def show(name: NameArgument, as_json: AsJson = False) -> None:
    """Show one host, and the sandboxes on it."""
    with Api.of(local.settings()) as api:
        found = api.get(one(name))
    if as_json:
        output.as_json(found)
        return
    for part in hosts.story(found):
        output.stdout().print(part)


def cordon(name: NameArgument) -> None:
    """Let nothing new onto a host; what is there stays."""
    with Api.of(local.settings()) as api:
        found = api.post(one(name, "cordon"), {})
    print(f"{output.plain(found['name'])} is cordoned: nothing new comes onto it")


def uncordon(name: NameArgument) -> None:
    """Let new things onto a host again; a drain ends too."""
    with Api.of(local.settings()) as api:
        found = api.post(one(name, "uncordon"), {})
    print(f"{output.plain(found['name'])} takes new sessions again, once it is up")


def drain(
    name: NameArgument,
    wait: Annotated[
        bool, typer.Option("--wait", help="Leave its sessions to end instead of moving them.")
    ] = False,
    timeout: TimeoutOption = "1h",
) -> None:
    """Empty a host: its sessions move to other hosts, under the same links.

    Returns once nothing is left on it. Ctrl-C stops the waiting alone; to take a drain back:
    spawnctl hosts uncordon NAME.
    """
    within_s = duration.parse(timeout)
    with Api.of(local.settings()) as api:
        _empty(api, name, wait=wait, within_s=within_s)
    shown = output.plain(name)
    print(f"{shown} is empty, and stays so until: spawnctl hosts uncordon {shown}")


def remove(
    name: NameArgument,
    drained: Annotated[
        bool, typer.Option("--drain", help="Move its sessions to other hosts first.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Let its sessions start again elsewhere, as if it was lost."),
    ] = False,
    timeout: TimeoutOption = "1h",
) -> None:
    """Take a host out of the pool.

    One with sessions on it needs --drain or --force.
    """
    within_s = duration.parse(timeout)
    if drained and force:
        raise Problem(Exit.USAGE, "bad_options", "--drain and --force exclude each other")
    with Api.of(local.settings()) as api:
        if drained:
            _empty(api, name, wait=False, within_s=within_s)
        api.delete(one(name) + ("?force=true" if force else ""))
        waits.until(
            api,
            waits.Awaited(
                name=name,
                what="to leave",
                there=lambda host: host is None,
                say=lambda host: f"{name} is leaving: {_left(host)}",
                within_s=_LEAVE_S,
                goes_on="it goes on leaving",
            ),
        )
    print(f"{output.plain(name)} has left the pool")


def _empty(api: Api, name: str, *, wait: bool, within_s: float) -> None:
    """Drain, and wait until nothing is left. Raises Problem."""
    api.post(one(name, "drain"), {"wait": wait})
    waits.until(
        api,
        waits.Awaited(
            name=name,
            what="to be empty",
            there=lambda host: host is None or host["used"] == 0,
            say=lambda host: f"draining {name}: {_left(host)}",
            within_s=within_s,
            goes_on="it goes on being drained",
            stalled="" if wait else _STUCK,
        ),
    )


def _left(host: Json) -> str:
    """ "2 sessions and 1 other sandbox left"; a host's sandboxes that end hold slots till then."""
    boxes = host["sandboxes"]
    held = sum(box["session_id"] is not None for box in boxes)
    others = len(boxes) - held
    said = [output.count(held, "session")] if held else []
    if others:
        said.append(f"{others} other sandbox" + ("" if others == 1 else "es"))
    return f"{' and '.join(said) or 'nothing'} left"
