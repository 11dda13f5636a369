"""Progress of one session on stderr: a live bar in a terminal, lines elsewhere. Used by run."""

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
    """Shows a Status of the API whenever there is a new one."""

    def show(self, status: dict[str, Any]) -> None: ...


@contextmanager
def for_stderr() -> Iterator[Display]:
    """What fits stderr: nobody wants a bar's control codes in a log file."""
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
        transient=True,  # the result says all that is worth keeping
        expand=True,
    ) as bar:
        yield Bar(bar)


class Bar:
    """In a terminal."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None  # from the first status on: nothing jumps from 0

    def show(self, status: dict[str, Any]) -> None:
        said, done = describe(status), status["progress"]
        state = f"{output.plain(status['status']):12}"
        if self._task is None:
            self._task = self._bar.add_task(said, total=100, completed=done, state=state)
        else:
            self._bar.update(self._task, description=said, completed=done, state=state)


class Lines:
    """In a pipe or a log: a line for each thing that differs from the last one said."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = ""

    def show(self, status: dict[str, Any]) -> None:
        said = f"{status['status']}: {describe(status)}"
        if said != self._said:
            self._console.print(f"{status['progress']:3d}%  {said}")
            self._said = said


def describe(status: dict[str, Any]) -> str:
    """What is going on, in one line."""
    message = output.plain(status["message"])
    if status["queue_position"] is not None:
        return f"{message} (place {status['queue_position']} in the queue)"
    return message


def say_phases(phases: list[dict[str, Any]]) -> str:
    """Where the time went: "queued 10 ms, deploying 1.2 s"."""
    return ", ".join(f"{output.plain(one['name'])} {say_short(one['seconds'])}" for one in phases)


def say_short(seconds: float) -> str:
    """A duration that may be milliseconds."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else duration.say(seconds)
