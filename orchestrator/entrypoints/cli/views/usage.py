"""Calls to the model, their tokens and their cost. Used by `spawnctl usage` and by `sessions`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from orchestrator.domain.llm.usage import GroupBy
from orchestrator.entrypoints.cli import output

Json = dict[str, Any]

_GROUPED_BY_ID = {GroupBy.USER, GroupBy.SESSION}


def usage_table(usage: Json, group_by: GroupBy) -> Table:
    """One line a group, and a total."""
    first_column = group_by.value.upper()
    table = output.table(
        first_column, "CALLS", "INPUT", "CACHED", "OUTPUT", "COST", shrink={first_column}
    )
    for row in usage["rows"]:
        table.add_row(_group_name(group_by, row["key"]), *_figures(row))
    table.add_row("all", *_figures(usage["total"]))
    return table


def summary(usage: Json) -> str:
    """The usage of one session in a sentence; with the cost by provider if there are several."""
    calls = output.count(usage["calls"], "call")
    cached = f" ({usage['cache_read_tokens']:,} cached)" if usage["cache_read_tokens"] else ""
    text = f"{_dollars(usage)} for {calls}: {_input_tokens(usage):,} tokens in{cached}"
    text += f", {usage['output_tokens']:,} out"
    if len(usage["by_provider"]) < 2:
        return text
    providers = [f"{output.plain(row['key'])} {_dollars(row)}" for row in usage["by_provider"]]
    return f"{text}; {', '.join(providers)}"


def _group_name(group_by: GroupBy, key: str) -> str:
    if group_by in _GROUPED_BY_ID:
        return output.short_id(key)
    return output.truncate(key, 28) or "(nobody answered)"


def _figures(row: Json) -> tuple[str, ...]:
    """Calls, input tokens, those of them that the provider had cached, output tokens, dollars."""
    return (
        f"{row['calls']:,}",
        f"{_input_tokens(row):,}",
        f"{row['cache_read_tokens']:,}",
        f"{row['output_tokens']:,}",
        _dollars(row),
    )


def _dollars(row: Json) -> str:
    return f"${row['cost_usd']:,.4f}"


def _input_tokens(row: Json) -> int:
    total: int = row["input_tokens"] + row["cache_write_tokens"] + row["cache_read_tokens"]
    return total
