"""`spawnctl status` and `pool`: the state of the installation, and of its pool in detail."""

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
from orchestrator.entrypoints.cli.views.hosts import hosts_table

Json = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Add both commands."""
    app.command("status")(show_status)
    app.command("pool")(show_pool)


def show_status(as_json: AsJson = False) -> None:
    """Show the state of the whole installation."""
    settings = local.settings()
    with Api.from_settings(settings) as api:
        overview = api.get("/api/admin/overview")
    if as_json:
        output.print_json(overview)
        return
    console = output.stdout()
    for part in overview_parts(overview, settings.addresses.page_url):
        console.print(part)


def show_pool(as_json: AsJson = False) -> None:
    """Show hosts, slots, sandboxes and queues."""
    with Api.from_settings(local.settings()) as api:
        response = api.get("/api/admin/pool")
    if as_json:
        output.print_json(response)
        return
    console = output.stdout()
    wide = console.width >= output.WIDE
    console.print(output.facts(pool.summary(response)))
    if response["hosts"]:
        console.print()
        console.print(hosts_table(response["hosts"], wide=wide))
    if response["sandboxes"]:
        console.print()
        console.print(pool.sandboxes_table(response["sandboxes"], wide=wide))


def overview_parts(overview: Json, page_url: str) -> Iterator[RenderableType]:
    """Everything about the installation, the most important first."""
    version, uptime = output.plain(overview["version"]), output.age(overview["started_at"])
    yield Text.assemble(("SpawnAI ", "bold"), version, f"  {page_url}/  up {uptime}")
    yield output.facts(
        [
            ("sessions", _sessions(overview["sessions"])),
            *pool.summary(overview["pool"]),
        ]
    )
    yield Text("\nChecks", style="bold")
    for name, check in overview["checks"].items():
        yield _check(name, check)
    for warning in overview["warnings"]:
        yield Text.assemble(("\nWarning  ", "bold yellow"), output.plain(warning))


def _sessions(counts: Json) -> Text:
    """The number of sessions in each state that has any."""
    parts = [
        Text.assemble(str(count), " ", output.state_text(state))
        for state, count in counts.items()
        if count
    ]
    return Text(", ").join(parts) if parts else Text("none yet")


def _check(name: str, check: Json) -> Text:
    mark = ("ok  ", "green") if check["ok"] else ("no  ", "bold red")
    if name == "claude" and not check["ok"]:
        mark = ("--  ", "yellow")  # no failure: templates work without Claude
    return Text.assemble(mark, f"{output.plain(name):9} ", output.plain(check["detail"]))
