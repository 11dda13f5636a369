"""`spawnctl pool`: hosts, slots, sandboxes and queues."""

from __future__ import annotations

import typer

from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.views import hosts
from orchestrator.entrypoints.cli.views import pool as pool_view


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(pool)


def pool(as_json: AsJson = False) -> None:
    """Show hosts, slots, sandboxes and queues."""
    with Api.of(local.settings()) as api:
        found = api.get("/api/admin/pool")
    if as_json:
        output.as_json(found)
        return
    console = output.stdout()
    wide = console.width >= output.WIDE
    console.print(output.facts(pool_view.level(found)))
    if found["hosts"]:
        console.print()
        console.print(hosts.listing(found["hosts"], wide=wide))
    if found["sandboxes"]:
        console.print()
        console.print(pool_view.sandboxes(found["sandboxes"], wide=wide))
