"""`spawnctl usage`: tokens and cost of the calls to the model."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.domain.llm.usage import GroupBy
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.views.usage import usage_table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(usage)


def usage(
    by: Annotated[GroupBy, typer.Option(help="How to group the calls.")] = GroupBy.DAY,
    days: Annotated[int, typer.Option(min=1, max=366, help="How many days back.")] = 30,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many rows at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what the calls to the model used: tokens and cost."""
    with Api.from_settings(local.settings()) as api:
        response = api.get("/api/admin/usage", by=by.value, days=days, limit=limit)
    if as_json:
        output.print_json(response)
        return
    output.stdout().print(usage_table(response, by))
    output.stderr().print(f"Prices as of {output.plain(response['prices_of'])}; tokens.")
