"""`spawnctl usage`: what calls to the model came to."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.domain.llm.usage import By
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.views import spending

_SHORT = {By.USER, By.SESSION}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(usage)


def usage(
    by: Annotated[By, typer.Option(help="What calls are summed up by.")] = By.DAY,
    days: Annotated[int, typer.Option(min=1, max=366, help="How far back.")] = 30,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Rows, at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what calls to the model came to: tokens and cost."""
    with Api.of(local.settings()) as api:
        found = api.get("/api/admin/usage", by=by.value, days=days, limit=limit)
    if as_json:
        output.as_json(found)
        return
    table = output.table(
        by.value.upper(), "CALLS", "INPUT", "CACHED", "OUTPUT", "COST", shrink={by.value.upper()}
    )
    for row in found["rows"]:
        table.add_row(_name(by, row["key"]), *spending.figures(row))
    table.add_row("all", *spending.figures(found["total"]))
    output.stdout().print(table)
    output.stderr().print(f"Prices as of {output.plain(found['prices_of'])}; tokens.")


def _name(by: By, key: str) -> str:
    if by in _SHORT:
        return output.short(key)
    return output.cut(key, 28) or "(nobody answered)"
