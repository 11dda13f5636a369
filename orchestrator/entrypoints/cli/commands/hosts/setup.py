"""`spawnctl hosts bootstrap|cloud-init`: from a bare machine to one that may join."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import jinja2
import typer
from rich.text import Text

from orchestrator import bootstrap as wiring
from orchestrator import config
from orchestrator.adapters.ssh import connection as ssh
from orchestrator.adapters.ssh.connection import Ran
from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.domain.pool import host_fields, host_setup
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.domain.pool.host_setup import Step
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.commands.hosts import surveys, trust
from orchestrator.entrypoints.cli.commands.hosts.trust import (
    AddressArgument,
    FingerprintOption,
    YesOption,
)
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views import live

_CLOUD_INIT = config.PROJECT_ROOT / "deploy" / "cloud-init.yaml.j2"
_CHECK_S = 30.0
_APPLY_S = 900.0  # apt over a slow line
_SAID_CHARACTERS = 600  # of what a step printed: its end says why


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command()(bootstrap)
    group.command("cloud-init")(cloud_init)


def bootstrap(
    address: AddressArgument,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print it as a script for root, and change nothing.")
    ] = False,
    fingerprint: FingerprintOption = "",
    yes: YesOption = False,
) -> None:
    """Make a bare machine fit over SSH; --dry-run prints how.

    Docker, firewall, folders, sshd: what is there already is left as it is, so that it may be
    repeated. A machine that doesn't know our key yet: spawnctl hosts bootstrap ADDRESS --dry-run |
    ssh ADDRESS sh
    """
    settings = local.settings()
    where = host_fields.parse_address(address)
    steps = host_setup.steps(_wanted(settings, where.user))
    if dry_run:
        print(host_setup.script(steps), end="")
        return
    shown = surveys.host_key(where)
    trust.confirm(shown, where, fingerprint, yes=yes)
    machine = _Machine(address=where, key=settings.places.ssh_key, pinned=shown.line)
    asyncio.run(_carry_out(machine, steps))
    print(f"{where} is set up. Now: spawnctl hosts add {where} --name NAME")


def cloud_init(
    name: Annotated[str, typer.Option(help="The machine's host name.")] = "",
) -> None:
    """Print the cloud-init of a machine that is fit from its first start.

    Give it to the provider as user data; then: spawnctl hosts add ssh://root@ADDRESS
    """
    print(rendered(local.settings(), name), end="")


def rendered(settings: Settings, name: str) -> str:
    """The user data: the same script that --dry-run prints, run at the first start."""
    if name:
        host_fields.checked_name(name)
    script = host_setup.script(host_setup.steps(_wanted(settings, "root")))
    # No HTML: what would be escaped is part of a shell script.
    environment = jinja2.Environment(  # noqa: S701
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    template = environment.from_string(_CLOUD_INIT.read_text("utf-8"))
    return template.render(name=name, script=script)


def _wanted(settings: Settings, user: str) -> host_setup.Wanted:
    key = trust.public_key(settings)
    return host_setup.Wanted(
        user=user,
        public_key=key,
        agent_folder=wiring.agent_folder_of_hosts(wiring.sandbox_limits(settings).instance),
    )


@dataclass(frozen=True, kw_only=True)
class _Machine:
    """Runs commands on a machine. Each over a connection of its own: an sshd that allows a single
    session per connection is one of the things to mend."""

    address: HostAddress
    key: Path
    pinned: str
    prefix: tuple[str, ...] = ()  # what makes a command root's

    async def run(self, *argv: str, within_s: float = _CHECK_S) -> Ran:
        async with ssh.connected(self.address, key=self.key, pinned=self.pinned) as connection:
            return await ssh.run(connection, (*self.prefix, *argv), within_s=within_s)


async def _carry_out(machine: _Machine, steps: Sequence[Step]) -> None:
    """One step after the other, with a tick for each. Raises Problem where a required one fails."""
    console, address = output.stderr(), machine.address
    machine = replace(machine, prefix=await _prefix(machine))
    for step in steps:
        with live.for_stderr(lines=False) as display:
            display.say(step.title)
            said = await _take(machine, step)
        if said in {"already", "done"}:
            console.print(Text.assemble((f"{said:9}", "green"), step.title))
            continue
        console.print(Text.assemble(("failed   ", "red"), step.title))
        console.print(output.lines(said), style="bright_black", soft_wrap=True)
        if step.required:
            raise Problem(
                Exit.FAILED,
                "step_failed",
                f"{address}: {step.title}: failed; what it said stands above",
                "Mend that, and repeat the command: what is done stays done.",
                f"See each step: spawnctl hosts bootstrap {address} --dry-run",
            )


async def _prefix(machine: _Machine) -> tuple[str, ...]:
    """Raises Problem when there is none that works."""
    if (await machine.run("id", "-u")).stdout.strip() == "0":
        return ()
    if (await machine.run("sudo", "-n", "true")).code == 0:
        return ("sudo", "-n")
    raise Problem(
        Exit.UNAUTHORIZED,
        "not_root",
        f"{machine.address.user} may not become root without a password there",
        "Log in as root, or give that user passwordless sudo",
        f"Or run it yourself: spawnctl hosts bootstrap {machine.address} --dry-run prints it",
    )


async def _take(machine: _Machine, step: Step) -> str:
    """ "already", "done", or what was said when it failed."""
    check = f"{host_setup.PATH}\n{step.check}"
    if (await machine.run("sh", "-ec", check)).code == 0:
        return "already"
    apply = f"{host_setup.PATH}\n{step.apply}"
    try:
        applied = await machine.run("sh", "-ec", apply, within_s=_APPLY_S)
        checked = await machine.run("sh", "-ec", check)
    except errors.LinkDown:
        raise
    except errors.Temporary as late:
        return str(late)
    if applied.code == 0 and checked.code == 0:
        return "done"
    said = applied.output if applied.code else f"{applied.output}\n{checked.output}"
    return said.strip()[-_SAID_CHARACTERS:] or "it ran, and the check still fails"
