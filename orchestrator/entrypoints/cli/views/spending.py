"""What calls to the model came to, in figures and in words. Used by usage and sessions."""

from __future__ import annotations

from typing import Any

from orchestrator.entrypoints.cli import output

Json = dict[str, Any]


def figures(row: Json) -> tuple[str, ...]:
    """Calls, tokens that went in, those of them that the provider's cache had, out, dollars."""
    return (
        f"{row['calls']:,}",
        f"{_sent(row):,}",
        f"{row['cache_read_tokens']:,}",
        f"{row['output_tokens']:,}",
        dollars(row),
    )


def in_words(usage: Json) -> str:
    """The same of one session; and by provider, if there was more than one."""
    calls = output.count(usage["calls"], "call")
    cached = f" ({usage['cache_read_tokens']:,} cached)" if usage["cache_read_tokens"] else ""
    said = f"{dollars(usage)} for {calls}: {_sent(usage):,} tokens in{cached}"
    said += f", {usage['output_tokens']:,} out"
    if len(usage["by_provider"]) < 2:
        return said
    parts = [f"{output.plain(one['key'])} {dollars(one)}" for one in usage["by_provider"]]
    return f"{said}; {', '.join(parts)}"


def dollars(row: Json) -> str:
    return f"${row['cost_usd']:,.4f}"


def _sent(row: Json) -> int:
    total: int = row["input_tokens"] + row["cache_write_tokens"] + row["cache_read_tokens"]
    return total
