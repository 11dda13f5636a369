"""`spawnctl doctor`: what is wrong with this machine, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import typer
from rich.table import Table
from rich.text import Text

from orchestrator.config import Settings
from orchestrator.entrypoints.cli import checks_engine, checks_machine, checks_plane, local, output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.findings import Finding, Level
from orchestrator.entrypoints.cli.output import AsJson

_MARKS = {
    Level.OK: ("ok", "green"),
    Level.WARNING: ("warning", "yellow"),
    Level.PROBLEM: ("problem", "bold red"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(as_json: AsJson = False) -> None:
    """Check this machine, and say how to mend what is wrong. Exit code 7 when something is."""
    found = list(examine(local.settings()))
    problems = [one for one in found if one.level is Level.PROBLEM]
    if as_json:
        output.as_json({"ok": not problems, "checks": [_plain(one) for one in found]})
    else:
        output.stdout().print(report(found))
        _say_sum(found)
    if problems:
        raise typer.Exit(Exit.PROBLEMS)


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything, what others rest on first."""
    # Without a key: /health and /ready need none, and an unreadable one is no reason to stop here.
    with Api(local.api_url(settings), key="") as api:
        running = checks_plane.answers(api)
        yield from checks_machine.machine()
        yield from checks_machine.state_folder(settings)
        yield from checks_machine.programs(settings)
        yield from checks_machine.ports(settings, running=running)
        yield from checks_engine.engine(settings, running=running)
        yield from checks_plane.plane(api, settings, running=running)
        yield checks_plane.claude(api, settings, running=running)


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


def _say_sum(found: Sequence[Finding]) -> None:
    counts = {level: sum(one.level is level for one in found) for level in Level}
    problems, warnings = counts[Level.PROBLEM], counts[Level.WARNING]
    if not problems and not warnings:
        said = Text("\nAll is well.", "green")
    else:
        parts = f"{output.count(problems, 'problem')}, {output.count(warnings, 'warning')}"
        said = Text(f"\n{parts}", "red" if problems else "yellow")
    output.stdout().print(said)


def _plain(one: Finding) -> dict[str, str]:
    return {"name": one.name, "level": one.level, "detail": one.detail, "fix": one.fix}
