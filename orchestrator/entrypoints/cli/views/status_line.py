"""A status line on stderr that says what is going on: a spinner in a terminal, lines elsewhere.

Used by `spawnctl hosts` while it waits or sets up a machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.status import Status

from orchestrator.entrypoints.cli import output


class StatusLine(Protocol):
    """Shows the latest text. The commands update it again and again."""

    def update(self, text: str) -> None: ...


@contextmanager
def open_status_line(*, in_logs: bool = True) -> Iterator[StatusLine]:
    """The kind that suits stderr: a log file must not get a spinner's control codes.

    `in_logs`: whether to print the texts at all if stderr is no terminal.
    """
    console = output.stderr()
    if not console.is_terminal:
        yield Lines(console) if in_logs else Silence()
        return
    with console.status("") as status:
        yield Spinner(status)


class Spinner:
    """For a terminal."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def update(self, text: str) -> None:
        self._status.update(output.one_line(text))


class Silence:
    """For texts that the command prints anyway when it has finished."""

    def update(self, text: str) -> None:
        """Print nothing."""


class Lines:
    """For a pipe or a log: prints each text that differs from the one before."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed = ""

    def update(self, text: str) -> None:
        if text != self._printed:
            self._console.print(output.plain(text))
            self._printed = text
