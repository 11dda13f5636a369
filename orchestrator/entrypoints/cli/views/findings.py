"""Findings as people and programs read them. Used by `spawnctl doctor` and `spawnctl hosts`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.findings import Finding, Level

_MARKS = {
    Level.OK: ("ok", "green"),
    Level.WARNING: ("warning", "yellow"),
    Level.PROBLEM: ("problem", "bold red"),
}


def show(found: Sequence[Finding]) -> None:
    """The report and its sum, to stdout."""
    console = output.stdout()
    console.print(report(found))
    console.print(_sum(found))


def plain(found: Sequence[Finding]) -> list[dict[str, str]]:
    """For JSON."""
    return [
        {
            "name": one.name,
            "level": one.level,
            "detail": one.detail,
            "fix": one.fix,
            "code": one.code,
        }
        for one in found
    ]


def report(found: Sequence[Finding]) -> Table:
    """One line a check, and the remedy below what needs one."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for one in found:
        mark, style = _MARKS[one.level]
        detail = Text(output.plain(one.detail))
        if one.fix:
            detail.append("\n-> ", "bold").append(output.plain(one.fix), "cyan")
        made.add_row(Text(mark, style), one.name, detail)
    return made


def _sum(found: Sequence[Finding]) -> Text:
    counts = {level: sum(one.level is level for one in found) for level in Level}
    problems, warnings = counts[Level.PROBLEM], counts[Level.WARNING]
    if not problems and not warnings:
        return Text("\nAll is well.", "green")
    parts = f"{output.count(problems, 'problem')}, {output.count(warnings, 'warning')}"
    return Text(f"\n{parts}", "red" if problems else "yellow")
