"""`spawnctl templates`: the apps that start at once."""

from __future__ import annotations

import typer

from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.output import AsJson


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(templates)


def templates(as_json: AsJson = False) -> None:
    """List the apps that start at once, without Claude."""
    with Api.of(local.settings()) as api:
        found = api.get("/api/templates")
    if as_json:
        output.as_json(found)
        return
    made = output.table("NAME", "KIND", "WHAT IT IS", wrap={"WHAT IT IS"})
    for one in found["templates"]:
        title, description = output.plain(one["title"]), output.plain(one["description"])
        made.add_row(
            output.plain(one["name"]), output.plain(one["kind"]), f"{title}: {description}"
        )
    output.stdout().print(made)
    output.stderr().print("Start one: spawnctl run --template NAME")
