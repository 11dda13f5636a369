"""A line on stderr that says what is going on: alive in a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.status import Status

from orchestrator.entrypoints.cli import output


class Display(Protocol):
    """Is told again and again; what it shows is the last one."""

    def say(self, text: str) -> None: ...


@contextmanager
def for_stderr(*, lines: bool = True) -> Iterator[Display]:
    """What fits stderr: nobody wants a spinner's control codes in a log file. `lines`: whether one
    that is no terminal hears of it at all."""
    console = output.stderr()
    if not console.is_terminal:
        yield Lines(console) if lines else Silence()
        return
    with console.status("") as status:
        yield Spinner(status)


class Spinner:
    """In a terminal."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def say(self, text: str) -> None:
        self._status.update(output.one_line(text))


class Silence:
    """For what will be said anyway once it is over."""

    def say(self, text: str) -> None:
        """Nothing."""


class Lines:
    """In a pipe or a log: a line for each thing that differs from the last one said."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = ""

    def say(self, text: str) -> None:
        if text != self._said:
            self._console.print(output.plain(text))
            self._said = text
