"""Progress of one session on stderr: a bar in a terminal, lines elsewhere.

Used by `spawnctl run` and by `spawnctl sessions message` and `restore`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column

from orchestrator.domain import duration
from orchestrator.entrypoints.cli import output


class Display(Protocol):
    """Shows the latest status that the API returned."""

    def show(self, status: dict[str, Any]) -> None: ...


@contextmanager
def open_display() -> Iterator[Display]:
    """The kind that suits stderr: a log file must not get a bar's control codes."""
    console = output.stderr()
    if not console.is_terminal:
        yield Lines(console)
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.fields[state]}", style="bold", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
        console=console,
        transient=True,  # the result says everything that is worth keeping
        expand=True,
    ) as bar:
        yield Bar(bar)


class Bar:
    """For a terminal."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None  # added with the first status: the bar never jumps from 0

    def show(self, status: dict[str, Any]) -> None:
        text, percent = describe(status), status["progress"]
        state = f"{output.plain(status['status']):12}"
        if self._task is None:
            self._task = self._bar.add_task(text, total=100, completed=percent, state=state)
        else:
            self._bar.update(self._task, description=text, completed=percent, state=state)


class Lines:
    """For a pipe or a log: prints each status whose text differs from the one before."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed = ""

    def show(self, status: dict[str, Any]) -> None:
        text = f"{status['status']}: {describe(status)}"
        if text != self._printed:
            self._console.print(f"{status['progress']:3d}%  {text}")
            self._printed = text


def describe(status: dict[str, Any]) -> str:
    """What is going on, in one line."""
    message = output.plain(status["message"])
    if status["queue_position"] is not None:
        return f"{message} (place {status['queue_position']} in the queue)"
    return message


def phases_text(phases: list[dict[str, Any]]) -> str:
    """How long each phase took: "queued 10 ms, deploying 1.2 s"."""
    return ", ".join(
        f"{output.plain(phase['name'])} {seconds_text(phase['seconds'])}" for phase in phases
    )


def seconds_text(seconds: float) -> str:
    """A duration for people, down to milliseconds."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else duration.to_text(seconds)
