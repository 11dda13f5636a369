"""Findings for people and for programs. Used by `spawnctl doctor` and `spawnctl hosts`."""

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


def print_findings(findings: Sequence[Finding]) -> None:
    """Print all findings, and how many problems and warnings there are, to stdout."""
    console = output.stdout()
    console.print(findings_table(findings))
    console.print(_totals(findings))


def to_json(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """One object for each finding."""
    return [
        {
            "name": finding.name,
            "level": finding.level,
            "detail": finding.detail,
            "fix": finding.fix,
            "code": finding.code,
        }
        for finding in findings
    ]


def findings_table(findings: Sequence[Finding]) -> Table:
    """One line a finding, with its fix below it."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in findings:
        mark, style = _MARKS[finding.level]
        detail = Text(output.plain(finding.detail))
        if finding.fix:
            detail.append("\n-> ", "bold").append(output.plain(finding.fix), "cyan")
        grid.add_row(Text(mark, style), finding.name, detail)
    return grid


def _totals(findings: Sequence[Finding]) -> Text:
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    problems, warnings = counts[Level.PROBLEM], counts[Level.WARNING]
    if not problems and not warnings:
        return Text("\nAll is well.", "green")
    parts = f"{output.count(problems, 'problem')}, {output.count(warnings, 'warning')}"
    return Text(f"\n{parts}", "red" if problems else "yellow")
