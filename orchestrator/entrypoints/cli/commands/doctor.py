"""`spawnctl doctor`: what is wrong with this machine, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from orchestrator.config import Settings
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.checks import (
    control_plane,
    database,
    engine,
    front_proxy,
    machine,
    names,
    pool,
    variables,
)
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.findings import Finding, Level
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.views.findings import print_findings, to_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(as_json: AsJson = False) -> None:
    """Check this machine, and say how to fix what is wrong.

    Ends with exit code 7 if there is a problem.
    """
    findings = list(run_checks(local.settings()))
    has_problems = any(finding.level is Level.PROBLEM for finding in findings)
    if as_json:
        output.print_json({"ok": not has_problems, "checks": to_json(findings)})
    else:
        print_findings(findings)
    if has_problems:
        raise typer.Exit(Exit.PROBLEMS)


def run_checks(settings: Settings) -> Iterator[Finding]:
    """Run every check. A check comes before those that depend on it."""
    # No key: /health and /ready need none, and a key that can't be read must not stop the checks.
    with Api(local.api_url(settings), key="") as api:
        running = control_plane.is_running(api)
        yield from machine.check_system()
        yield from machine.check_state_folder(settings)
        yield from machine.check_programs(settings)
        yield from machine.check_ports(settings, running=running)
        yield variables.check_variables(settings)
        yield names.check_names(settings)
        yield front_proxy.check_front_proxy(settings)
        yield from engine.check_engine(settings, running=running)
        if not running:  # a running one reports its database itself
            yield database.check_database(settings)
        yield from control_plane.check_control_plane(api, settings, running=running)
        yield control_plane.check_claude_key(api, settings, running=running)
    if running:
        yield from pool.check_pool(settings)
