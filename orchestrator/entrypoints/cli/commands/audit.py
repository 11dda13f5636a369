"""`spawnctl audit`: who did what."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.output import AsJson

_ID_CHARS = 30  # "ses_" and 26 more


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("audit")(show)


def show(
    limit: Annotated[int, typer.Option(min=1, help="How many entries at most.")] = 50,
    show_all: Annotated[bool, typer.Option("--all", help="All of them, without a limit.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show who did what: sessions, hosts, refused tokens."""
    with Api.from_settings(local.settings()) as api:
        response = api.get_pages("/api/admin/audit", "entries", limit=None if show_all else limit)
    if as_json:
        output.print_json(response)
        return
    table = output.table("AT", "WHO", "WHAT", "TO", "DETAIL", wrap={"DETAIL"})
    for entry in response["entries"]:
        table.add_row(
            output.local_time(entry["at"]),
            _short(entry["actor"]),
            output.plain(entry["action"]),
            _short(entry["subject"]),
            output.plain(entry["detail"]),
        )
    output.stdout().print(table)
    if response["next"]:
        output.stderr().print(f"There are more than these {limit}: --limit N or --all shows them.")


def _short(name: str) -> str:
    """Ids as other commands show them. Names of hosts and roles as they are."""
    is_id = name[3:4] == "_" and len(name) == _ID_CHARS
    return output.short_id(name) if is_id else output.truncate(name, 32)
