"""`spawnctl hosts bootstrap|cloud-init`: sets up a bare machine so that it may join the pool."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import jinja2
import typer
from rich.text import Text

from orchestrator import config
from orchestrator.adapters.ssh import connection as ssh
from orchestrator.adapters.ssh.connection import CommandResult
from orchestrator.bootstrap import agent_folder_of_hosts, sandbox_limits
from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.domain.pool import host_fields, host_setup
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.domain.pool.host_setup import SetupStep
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.commands.hosts import inspection, trust
from orchestrator.entrypoints.cli.commands.hosts.trust import (
    AddressArgument,
    FingerprintOption,
    YesOption,
)
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views.status_line import open_status_line

_CLOUD_INIT = config.PROJECT_ROOT / "deploy" / "cloud-init.yaml.j2"
_CHECK_TIMEOUT_S = 30.0
_APPLY_TIMEOUT_S = 900.0  # apt over a slow line
_OUTPUT_MAX = 600  # characters of a step's output: its end says why the step failed


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
    """Set up a bare machine over SSH; --dry-run prints how.

    Docker, firewall, folders, sshd. Leaves alone what is set up already, so it may be repeated. If
    the machine doesn't know our key yet: spawnctl hosts bootstrap ADDRESS --dry-run | ssh ADDRESS
    sh
    """
    settings = local.settings()
    host_address = host_fields.parse_address(address)
    steps = host_setup.steps(_setup_target(settings, host_address.user))
    if dry_run:
        print(host_setup.render_script(steps), end="")
        return
    host_key = inspection.fetch_host_key(host_address)
    trust.confirm_host_key(host_key, host_address, fingerprint, yes=yes)
    machine = _Machine(address=host_address, key=settings.places.ssh_key, pinned=host_key.line)
    asyncio.run(_run_steps(machine, steps))
    print(f"{host_address} is set up. Now: spawnctl hosts add {host_address} --name NAME")


def cloud_init(
    name: Annotated[str, typer.Option(help="The machine's host name.")] = "",
) -> None:
    """Print the cloud-init that sets up a machine at its first start.

    Give it to the provider as user data. Then: spawnctl hosts add ssh://root@ADDRESS
    """
    print(render_cloud_init(local.settings(), name), end="")


def render_cloud_init(settings: Settings, name: str) -> str:
    """The user data. It runs the script of `bootstrap --dry-run` at the first start."""
    if name:
        host_fields.checked_name(name)
    script = host_setup.render_script(host_setup.steps(_setup_target(settings, "root")))
    # Not HTML: escaping would break the shell script.
    environment = jinja2.Environment(  # noqa: S701
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    template = environment.from_string(_CLOUD_INIT.read_text("utf-8"))
    return template.render(name=name, script=script)


def _setup_target(settings: Settings, user: str) -> host_setup.SetupTarget:
    public_key = trust.ensure_public_key(settings)
    return host_setup.SetupTarget(
        user=user,
        public_key=public_key,
        agent_folder=agent_folder_of_hosts(sandbox_limits(settings).instance),
    )


@dataclass(frozen=True, kw_only=True)
class _Machine:
    """Runs commands on a machine, each over a connection of its own. An sshd that allows a single
    session per connection is one of the things that the setup fixes."""

    address: HostAddress
    key: Path
    pinned: str
    prefix: tuple[str, ...] = ()  # words before a command that make it run as root

    async def run(self, *argv: str, timeout_s: float = _CHECK_TIMEOUT_S) -> CommandResult:
        async with ssh.open_connection(
            self.address, key=self.key, pinned=self.pinned
        ) as connection:
            return await ssh.run(connection, (*self.prefix, *argv), timeout_s=timeout_s)


async def _run_steps(machine: _Machine, steps: Sequence[SetupStep]) -> None:
    """Run the steps in order, and print a line for each. Raises Problem if a required one fails."""
    console, address = output.stderr(), machine.address
    machine = replace(machine, prefix=await _root_prefix(machine))
    for step in steps:
        with open_status_line(in_logs=False) as status_line:
            status_line.update(step.title)
            result = await _run_step(machine, step)
        if result in {"already", "done"}:
            console.print(Text.assemble((f"{result:9}", "green"), step.title))
            continue
        console.print(Text.assemble(("failed   ", "red"), step.title))
        console.print(output.plain_lines(result), style="bright_black", soft_wrap=True)
        if step.required:
            raise Problem(
                Exit.FAILED,
                "step_failed",
                f"{address}: {step.title}: failed; what it said stands above",
                "Fix that, and repeat the command: it leaves alone what is done.",
                f"See each step: spawnctl hosts bootstrap {address} --dry-run",
            )


async def _root_prefix(machine: _Machine) -> tuple[str, ...]:
    """The words that make a command run as root. Raises Problem if the user can't become root."""
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


async def _run_step(machine: _Machine, step: SetupStep) -> str:
    """Returns "already", "done", or the error or output of a step that failed."""
    check = f"{host_setup.PATH}\n{step.check}"
    if (await machine.run("sh", "-ec", check)).code == 0:
        return "already"
    apply = f"{host_setup.PATH}\n{step.apply}"
    try:
        applied = await machine.run("sh", "-ec", apply, timeout_s=_APPLY_TIMEOUT_S)
        checked = await machine.run("sh", "-ec", check)
    except errors.LinkDown:
        raise
    except errors.Temporary as timeout:
        return str(timeout)
    if applied.code == 0 and checked.code == 0:
        return "done"
    text = applied.output if applied.code else f"{applied.output}\n{checked.output}"
    return text.strip()[-_OUTPUT_MAX:] or "it ran, and the check still fails"
