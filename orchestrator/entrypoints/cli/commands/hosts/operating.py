"""`spawnctl hosts list|show|cordon|uncordon|drain|remove`: operates the hosts of the pool."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.domain import duration
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.arguments import HostArgument
from orchestrator.entrypoints.cli.client import HOSTS, Api, Json, host_path
from orchestrator.entrypoints.cli.commands.hosts.waits import Goal, wait_for
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views import hosts

TimeoutOption = Annotated[str, typer.Option(help="How long to wait at most, e.g. 10m.")]

_LEAVE_TIMEOUT_S = 120.0  # the daemon looks at the sandboxes of a leaving host within seconds

_STUCK = (
    "what doesn't move has no host to go to: the others are full, cordoned, or lack the region or"
    " the labels that it asks for"
)


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command("list")(list_hosts)
    group.command()(show)
    group.command()(cordon)
    group.command()(uncordon)
    group.command()(drain)
    group.command()(remove)


def list_hosts(as_json: AsJson = False) -> None:
    """List hosts: their state, their link, their free slots."""
    with Api.from_settings(local.settings()) as api:
        response = api.get(HOSTS)
    if as_json:
        output.print_json(response)
        return
    if not response["hosts"]:
        output.stderr().print("No hosts. Add one: spawnctl hosts add ssh://root@ADDRESS --name N")
        return
    console = output.stdout()
    console.print(hosts.hosts_table(response["hosts"], wide=console.width >= output.WIDE))


def show(name: HostArgument, as_json: AsJson = False) -> None:
    """Show one host, and the sandboxes on it."""
    with Api.from_settings(local.settings()) as api:
        host = api.get(host_path(name))
    if as_json:
        output.print_json(host)
        return
    for part in hosts.details(host):
        output.stdout().print(part)


def cordon(name: HostArgument) -> None:
    """Place nothing new on a host; what runs there stays."""
    with Api.from_settings(local.settings()) as api:
        host = api.post(host_path(name, "cordon"), {})
    print(f"{output.plain(host['name'])} is cordoned: nothing new comes onto it")


def uncordon(name: HostArgument) -> None:
    """Place new sandboxes on a host again; a drain ends too."""
    with Api.from_settings(local.settings()) as api:
        host = api.post(host_path(name, "uncordon"), {})
    print(f"{output.plain(host['name'])} takes new sessions again, once it is up")


def drain(
    name: HostArgument,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its sessions to end instead of moving them.")
    ] = False,
    timeout: TimeoutOption = "1h",
) -> None:
    """Empty a host: its sessions move to other hosts, and keep their links.

    Returns when nothing is left on it. Ctrl-C stops only the waiting. To cancel a drain: spawnctl
    hosts uncordon NAME.
    """
    timeout_s = duration.parse(timeout)
    with Api.from_settings(local.settings()) as api:
        _drain_host(api, name, wait=wait, timeout_s=timeout_s)
    host_name = output.plain(name)
    print(f"{host_name} is empty, and stays so until: spawnctl hosts uncordon {host_name}")


def remove(
    name: HostArgument,
    drain_first: Annotated[
        bool, typer.Option("--drain", help="Move its sessions to other hosts first.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Start its sessions on other hosts, as if it was lost."),
    ] = False,
    timeout: TimeoutOption = "1h",
) -> None:
    """Take a host out of the pool.

    A host with sessions on it needs --drain or --force.
    """
    timeout_s = duration.parse(timeout)
    if drain_first and force:
        raise Problem(Exit.USAGE, "bad_options", "--drain and --force exclude each other")
    with Api.from_settings(local.settings()) as api:
        if drain_first:
            _drain_host(api, name, wait=False, timeout_s=timeout_s)
        api.delete(host_path(name) + ("?force=true" if force else ""))
        wait_for(
            api,
            Goal(
                name=name,
                text="to leave",
                is_reached=lambda host: host is None,
                describe=lambda host: f"{name} is leaving: {_count_left(host)}",
                timeout_s=_LEAVE_TIMEOUT_S,
                goes_on="it goes on leaving",
            ),
        )
    print(f"{output.plain(name)} has left the pool")


def _drain_host(api: Api, name: str, *, wait: bool, timeout_s: float) -> None:
    """Drain a host, and wait until nothing is left on it. Raises Problem."""
    api.post(host_path(name, "drain"), {"wait": wait})
    wait_for(
        api,
        Goal(
            name=name,
            text="to be empty",
            is_reached=lambda host: host is None or host["used"] == 0,
            describe=lambda host: f"draining {name}: {_count_left(host)}",
            timeout_s=timeout_s,
            goes_on="it goes on being drained",
            stall_hint="" if wait else _STUCK,
        ),
    )


def _count_left(host: Json) -> str:
    """Like "2 sessions and 1 other sandbox left". A sandbox that ends counts until it is gone,
    because it holds its slot until then."""
    sandboxes = host["sandboxes"]
    with_session = sum(sandbox["session_id"] is not None for sandbox in sandboxes)
    others = len(sandboxes) - with_session
    parts = [output.count(with_session, "session")] if with_session else []
    if others:
        parts.append(f"{others} other sandbox" + ("" if others == 1 else "es"))
    return f"{' and '.join(parts) or 'nothing'} left"
