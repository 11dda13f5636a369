"""How spawnctl prints: results to stdout, everything else to stderr. Used by every command.

Prompts, messages and log lines come from users and their apps: what is shown of them has lost its
control characters, or an app could write anything to an operator's terminal.
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
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.domain import duration
from orchestrator.entrypoints.cli.problems import Problem

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

_PIPE_WIDTH = 200  # columns where there is no terminal: grep wants whole lines
WIDE = 120  # columns from which a table shows its second-rank columns
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


def as_json(value: Any) -> None:
    """A result for programs. Escaped, so that no terminal acts on it either."""
    print(json.dumps(value, indent=2))


def problem(found: Problem) -> None:
    """Message, code, what to do: to stderr."""
    console = stderr()
    console.print(Text.assemble(("Error: ", "bold red"), lines(found.message)), soft_wrap=True)
    console.print(Text(f"Code:  {plain(found.code)}", style="bright_black"), soft_wrap=True)
    for advice in found.advice:
        console.print(Text.assemble(("Do:    ", "bold"), plain(advice)), soft_wrap=True)


def plain(text: object) -> str:
    """One line that no terminal acts on."""
    return " ".join(lines(text).split())


def lines(text: object) -> str:
    """The same, with its lines and its tabs."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _ESCAPE.sub("", str(text)))


def state(name: str) -> Text:
    """A state, coloured."""
    return Text(plain(name), style=STYLES.get(name, ""))


def short(an_id: str | None) -> str:
    """As much of an id as tells it from the others; every command takes it back."""
    return plain(an_id)[:_SHORT_ID] if an_id else "-"


def cut(text: object, length: int) -> str:
    """One line of at most `length` characters."""
    line = plain(text)
    return line if len(line) <= length else line[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def one_line(text: object) -> Text:
    """A cell that ends in an ellipsis where there isn't room for it."""
    return Text(plain(text), no_wrap=True, overflow="ellipsis")


def since(then: str, now: datetime | None = None) -> str:
    """How long ago an ISO time was, for people."""
    return duration.say((_now(now) - datetime.fromisoformat(then)).total_seconds())


def until(then: str, now: datetime | None = None) -> str:
    """How long it is until an ISO time, for people; "over" when it has passed."""
    left_s = (datetime.fromisoformat(then) - _now(now)).total_seconds()
    return duration.say(left_s) if left_s > 0 else "over"


def seconds_between(first: str, then: str) -> float:
    """From one ISO time to another."""
    return (datetime.fromisoformat(then) - datetime.fromisoformat(first)).total_seconds()


def clock(then: str) -> str:
    """An ISO time in the terminal's time zone, to the second."""
    return datetime.fromisoformat(then).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def table(*columns: str, wrap: Iterable[str] = (), shrink: Iterable[str] = ()) -> Table:
    """An empty table. Columns in `wrap` may take several lines, those in `shrink` (cells made by
    one_line) give way where it is narrow; the others keep their width."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name in columns:
        made.add_column(
            name,
            no_wrap=name not in wrap and name not in shrink,
            overflow="fold" if name in wrap else "ellipsis",
        )
    return made


def facts(pairs: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and values, one pair a line."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="bright_black", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(name, value)
    return made


def count(number: int, thing: str) -> str:
    """ "1 problem", "2 problems"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def size(size_bytes: int) -> str:
    """Bytes, for people: "812 B", "1.2 kB", "20.1 MB"."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    if size_bytes < 999_950:
        return f"{size_bytes / 1000:.1f} kB"
    return f"{size_bytes / 1_000_000:.1f} MB"


def _now(now: datetime | None) -> datetime:
    return datetime.now(UTC) if now is None else now


def _width(terminal: bool) -> int | None:
    return None if terminal or "COLUMNS" in os.environ else _PIPE_WIDTH
