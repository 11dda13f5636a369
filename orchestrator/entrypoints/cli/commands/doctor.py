"""`spawnctl doctor`: what is wrong with this machine, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from orchestrator.config import Settings
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.checks import control_plane, engine, machine, pool
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.findings import Finding, Level
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.views import findings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(as_json: AsJson = False) -> None:
    """Check this machine, and say how to mend what is wrong. Exit code 7 when something is."""
    found = list(examine(local.settings()))
    problems = [one for one in found if one.level is Level.PROBLEM]
    if as_json:
        output.as_json({"ok": not problems, "checks": findings.plain(found)})
    else:
        findings.show(found)
    if problems:
        raise typer.Exit(Exit.PROBLEMS)


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything, what others rest on first."""
    # Without a key: /health and /ready need none, and an unreadable one is no reason to stop here.
    with Api(local.api_url(settings), key="") as api:
        running = control_plane.answers(api)
        yield from machine.machine()
        yield from machine.state_folder(settings)
        yield from machine.programs(settings)
        yield from machine.ports(settings, running=running)
        yield from engine.engine(settings, running=running)
        yield from control_plane.plane(api, settings, running=running)
        yield control_plane.claude(api, settings, running=running)
    if running:
        yield from pool.hosts(settings)
