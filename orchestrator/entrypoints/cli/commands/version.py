"""`spawnctl version`. A module of its own: it must load neither settings nor the HTTP client."""

from __future__ import annotations

import platform

import typer

import orchestrator
from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.output import AsJson


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(version)


def version(as_json: AsJson = False) -> None:
    """Print the version."""
    if as_json:
        output.print_json(
            {"version": orchestrator.__version__, "python": platform.python_version()}
        )
    else:
        print(f"spawnctl {orchestrator.__version__}")
