"""`spawnctl status`: the whole installation at a glance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from rich.console import RenderableType
from rich.text import Text

from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.views import pool

Json = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(as_json: AsJson = False) -> None:
    """Show the whole installation at a glance."""
    settings = local.settings()
    with Api.of(settings) as api:
        found = api.get("/api/admin/overview")
    if as_json:
        output.as_json(found)
        return
    console = output.stdout()
    for part in glance(found, settings.addresses.page_url):
        console.print(part)


def glance(found: Json, page_url: str) -> Iterator[RenderableType]:
    """Everything, most important first."""
    up = output.since(found["started_at"])
    yield Text.assemble(
        ("SpawnAI ", "bold"), output.plain(found["version"]), f"  {page_url}/  up {up}"
    )
    yield output.facts(
        [
            ("sessions", _sessions(found["sessions"])),
            *pool.level(found["pool"]),
        ]
    )
    yield Text("\nChecks", style="bold")
    for name, check in found["checks"].items():
        yield _check(name, check)
    for warning in found["warnings"]:
        yield Text.assemble(("\nWarning  ", "bold yellow"), output.plain(warning))


def _sessions(counts: Json) -> Text:
    """The states that have any, each in its colour."""
    parts = [
        Text.assemble(str(count), " ", output.state(name))
        for name, count in counts.items()
        if count
    ]
    return Text(", ").join(parts) if parts else Text("none yet")


def _check(name: str, check: Json) -> Text:
    mark = ("ok  ", "green") if check["ok"] else ("no  ", "bold red")
    if name == "claude" and not check["ok"]:
        mark = ("--  ", "yellow")  # templates work without
    return Text.assemble(mark, f"{output.plain(name):9} ", output.plain(check["detail"]))
