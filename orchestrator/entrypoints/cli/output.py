"""How spawnctl prints: results to stdout, everything else to stderr. Used by every command.

Prompts, messages and log lines come from users and their apps. Control characters are removed from
them before they are printed: otherwise an app could send commands to an operator's terminal.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.domain import duration
from orchestrator.entrypoints.cli.problems import Problem

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

_PIPE_WIDTH = 200  # columns if stdout is no terminal: grep needs whole lines
WIDE = 120  # columns from which a table shows its less important columns too
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SHORT_ID = len("ses_") + 8

STYLES: Mapping[str, str] = {
    "queued": "yellow",
    "provisioning": "cyan",
    "generating": "magenta",
    "deploying": "blue",
    "ready": "green",
    "destroying": "bright_black",
    "destroyed": "bright_black",
    "failed": "red",
    "creating": "cyan",
    "warm": "green",
    "claimed": "blue",
    "stopping": "bright_black",
    "broken": "red",
    "joining": "yellow",
    "up": "green",
    "suspect": "yellow",
    "lost": "red",
    "running": "cyan",  # a change
    "done": "green",
}


def stdout() -> Console:
    return Console(highlight=False, markup=False, emoji=False, width=_width(sys.stdout.isatty()))


def stderr() -> Console:
    return Console(
        stderr=True, highlight=False, markup=False, emoji=False, width=_width(sys.stderr.isatty())
    )


def print_json(value: Any) -> None:
    """Print a result for programs. Escapes it, so that it can't control a terminal either."""
    print(json.dumps(value, indent=2))


def print_problem(problem: Problem) -> None:
    """Print message, code and advice to stderr."""
    console = stderr()
    message = plain_lines(problem.message)
    console.print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)
    console.print(Text(f"Code:  {plain(problem.code)}", style="bright_black"), soft_wrap=True)
    for advice in problem.advice:
        console.print(Text.assemble(("Do:    ", "bold"), plain(advice)), soft_wrap=True)


def plain(text: object) -> str:
    """The text in one line, without control characters."""
    return " ".join(plain_lines(text).split())


def plain_lines(text: object) -> str:
    """The text without control characters, except line breaks and tabs."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _ESCAPE.sub("", str(text)))


def state_text(state: str) -> Text:
    """A state in its colour."""
    return Text(plain(state), style=STYLES.get(state, ""))


def short_id(full_id: str | None) -> str:
    """The beginning of an id: enough to tell it from others, and every command accepts it."""
    return plain(full_id)[:_SHORT_ID] if full_id else "-"


def truncate(text: object, length: int) -> str:
    """One line of at most `length` characters."""
    line = plain(text)
    return line if len(line) <= length else line[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def one_line(text: object) -> Text:
    """A cell that ends in an ellipsis if its column is too narrow."""
    return Text(plain(text), no_wrap=True, overflow="ellipsis")


def age(time: str, now: datetime | None = None) -> str:
    """How long ago an ISO time was, for people."""
    return duration.to_text((_now(now) - datetime.fromisoformat(time)).total_seconds())


def time_left(time: str, now: datetime | None = None) -> str:
    """How long it is until an ISO time, for people; "over" if it has passed."""
    left_s = (datetime.fromisoformat(time) - _now(now)).total_seconds()
    return duration.to_text(left_s) if left_s > 0 else "over"


def seconds_between(start: str, end: str) -> float:
    """Seconds from one ISO time to another."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def local_time(time: str) -> str:
    """An ISO time in the terminal's time zone, to the second."""
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def table(*columns: str, wrap: Iterable[str] = (), shrink: Iterable[str] = ()) -> Table:
    """An empty table. Columns in `wrap` may take several lines. Columns in `shrink` (their cells
    are made by one_line) become narrower if the terminal is narrow; the others keep their width."""
    empty = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name in columns:
        empty.add_column(
            name,
            no_wrap=name not in wrap and name not in shrink,
            overflow="fold" if name in wrap else "ellipsis",
        )
    return empty


def facts(pairs: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and values, one pair a line."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bright_black", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, value)
    return grid


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 problem", "2 problems"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(size_bytes: int) -> str:
    """Bytes, for people: "812 B", "1.2 kB", "20.1 MB"."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    if size_bytes < 999_950:
        return f"{size_bytes / 1000:.1f} kB"
    return f"{size_bytes / 1_000_000:.1f} MB"


def _now(now: datetime | None) -> datetime:
    return datetime.now(UTC) if now is None else now


def _width(is_terminal: bool) -> int | None:
    return None if is_terminal or "COLUMNS" in os.environ else _PIPE_WIDTH
