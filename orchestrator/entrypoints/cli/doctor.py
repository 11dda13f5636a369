"""`spawnctl doctor`: what is wrong with this machine, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from orchestrator.config import Settings
from orchestrator.entrypoints.cli import (
    checks_engine,
    checks_machine,
    checks_plane,
    checks_pool,
    findings_view,
    local,
    output,
)
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.findings import Finding, Level
from orchestrator.entrypoints.cli.output import AsJson


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(as_json: AsJson = False) -> None:
    """Check this machine, and say how to mend what is wrong. Exit code 7 when something is."""
    found = list(examine(local.settings()))
    problems = [one for one in found if one.level is Level.PROBLEM]
    if as_json:
        output.as_json({"ok": not problems, "checks": findings_view.plain(found)})
    else:
        findings_view.show(found)
    if problems:
        raise typer.Exit(Exit.PROBLEMS)


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything, what others rest on first."""
    # Without a key: /health and /ready need none, and an unreadable one is no reason to stop here.
    with Api(local.api_url(settings), key="") as api:
        running = checks_plane.answers(api)
        yield from checks_machine.machine()
        yield from checks_machine.state_folder(settings)
        yield from checks_machine.programs(settings)
        yield from checks_machine.ports(settings, running=running)
        yield from checks_engine.engine(settings, running=running)
        yield from checks_plane.plane(api, settings, running=running)
        yield checks_plane.claude(api, settings, running=running)
    if running:
        yield from checks_pool.hosts(settings)
