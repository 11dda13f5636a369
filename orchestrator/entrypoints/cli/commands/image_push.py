"""Sends the runtime image to several hosts at once, with a progress bar for each.

Used by `spawnctl image push` and `spawnctl hosts add`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from orchestrator import bootstrap
from orchestrator.adapters.docker.flags import SandboxLimits
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.adapters.hosts.image_push import ImagePush, push_image
from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.entrypoints.cli import output, problems
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem

_AT_ONCE = 3  # each push reads the whole image from the same disk
_LINE_EVERY = 10  # per cent, if stderr is no terminal


@dataclass(frozen=True, kw_only=True)
class Target:
    """A host that is to get the image."""

    name: str
    address: HostAddress
    pinned: str  # its host key's line


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one push."""

    name: str
    sent: bool = False  # False if the host had the image, or if the push failed
    error: errors.SpawnError | None = None


class Display(Protocol):
    """Shows how many bytes each host has. Several threads call it."""

    def show(self, name: str, sent: int, total: int) -> None: ...


def push_to_hosts(settings: Settings, targets: Sequence[Target]) -> Sequence[Outcome]:
    """Push to all targets, and return the outcomes in the same order.

    If a push fails, the others go on. At the end, raises the Problem of the first failure after
    printing the others.
    """
    image = settings.pool.runtime_image or StateFolder(settings.places.state_dir).image()
    if not image:
        raise Problem(
            Exit.NOT_FOUND,
            "image_missing",
            "no runtime image was built yet",
            "spawnctl image build",
        )
    pushes = {target.name: _push_for(settings, target, image) for target in targets}
    with _open_display() as display:
        outcomes = _push_all(pushes, bootstrap.sandbox_limits(settings), display)
    failures = [
        _problem(outcome.name, outcome.error) for outcome in outcomes if outcome.error is not None
    ]
    for failure in failures[1:]:
        output.print_problem(failure)
    if failures:
        raise failures[0]
    return outcomes


def _push_for(settings: Settings, target: Target, image: str) -> ImagePush:
    return ImagePush(
        image=image,
        source_url=settings.places.docker_url,
        address=target.address,
        pinned=target.pinned,
        key=settings.places.ssh_key,
    )


def _push_all(
    pushes: Mapping[str, ImagePush], limits: SandboxLimits, display: Display
) -> Sequence[Outcome]:
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    results: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
    for name in pushes:
        waiting.put(name)

    def work() -> None:
        while True:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                results.put(_push_to_host(name, pushes[name], limits, display))
            except BaseException as bug:  # noqa: BLE001 - raised again in the main thread
                results.put(bug)

    # Daemon threads: Ctrl-C ends the command at once, not after some hundred megabytes more.
    # Docker discards an image that arrived in part.
    for _ in range(min(_AT_ONCE, len(pushes))):
        threading.Thread(target=work, daemon=True).start()
    outcomes: dict[str, Outcome] = {}
    while len(outcomes) < len(pushes):
        result = results.get()
        if isinstance(result, BaseException):
            raise result
        outcomes[result.name] = result
    return [outcomes[name] for name in pushes]


def _push_to_host(name: str, push: ImagePush, limits: SandboxLimits, display: Display) -> Outcome:
    try:
        was_sent = push_image(push, limits, lambda sent, total: display.show(name, sent, total))
    except errors.SpawnError as error:
        return Outcome(name=name, error=error)
    return Outcome(name=name, sent=was_sent)


def _problem(name: str, error: errors.SpawnError) -> Problem:
    problem = problems.from_error(error)
    return Problem(problem.exit_code, problem.code, f"{name}: {problem.message}", *problem.advice)


@contextmanager
def _open_display() -> Iterator[Display]:
    console = output.stderr()
    if not console.is_terminal:
        yield Lines(console)
        return
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bars:
        yield Bars(bars)


class Bars:
    """For a terminal. A bar appears with the first byte: a host that has the image gets none."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def show(self, name: str, sent: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(f"runtime image -> {name}", total=total)
        self._bars.update(self._tasks[name], completed=sent)
        if sent >= total:
            self._bars.update(self._tasks[name], description=f"{name} unpacks it")


class Lines:
    """For a pipe or a log: a line for every _LINE_EVERY per cent."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed: dict[str, int] = {}  # per cent, by host

    def show(self, name: str, sent: int, total: int) -> None:
        percent = 100 * sent // max(total, 1) // _LINE_EVERY * _LINE_EVERY
        if percent > self._printed.get(name, -1):
            self._printed[name] = percent
            self._console.print(f"runtime image -> {name}: {percent:3d}%")
