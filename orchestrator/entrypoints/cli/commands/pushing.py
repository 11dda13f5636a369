"""Streams the runtime image to hosts, a few at a time, with a bar each. Used by `spawnctl image
push` and `spawnctl hosts add`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
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
from orchestrator.adapters.hosts import image_push
from orchestrator.adapters.hosts.image_push import Push
from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.entrypoints.cli import output, problems
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem

_AT_ONCE = 3  # each reads the whole image from the same disk
_LINE_EVERY = 10  # per cent, where there is no terminal


@dataclass(frozen=True, kw_only=True)
class Target:
    """A host that is to have the image."""

    name: str
    address: HostAddress
    pinned: str  # its host key's line


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one push."""

    name: str
    sent: bool = False  # False when it was there already, or when it failed
    error: errors.SpawnError | None = None


class Display(Protocol):
    """Shows how far each is. Told from several threads."""

    def show(self, name: str, sent: int, total: int) -> None: ...


def push_all(settings: Settings, targets: Sequence[Target]) -> Sequence[Outcome]:
    """Push to all of them, in their order. What fails is said, and the others go on; raises Problem
    (the first one's) at the end."""
    image = settings.pool.runtime_image or StateFolder(settings.places.state_dir).image()
    if not image:
        raise Problem(
            Exit.NOT_FOUND,
            "image_missing",
            "no runtime image was built yet",
            "spawnctl image build",
        )
    pushes = {one.name: _push(settings, one, image) for one in targets}
    with _display() as display:
        done = _run(pushes, bootstrap.sandbox_limits(settings), display)
    failed = [(one.name, one.error) for one in done if one.error is not None]
    found = [_problem(name, error) for name, error in failed]
    for one_more in found[1:]:
        output.problem(one_more)
    if found:
        raise found[0]
    return done


def _push(settings: Settings, target: Target, image: str) -> Push:
    return Push(
        image=image,
        source_url=settings.places.docker_url,
        address=target.address,
        pinned=target.pinned,
        key=settings.places.ssh_key,
    )


def _run(pushes: dict[str, Push], limits: SandboxLimits, display: Display) -> Sequence[Outcome]:
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
                results.put(_one(name, pushes[name], limits, display))
            except BaseException as bug:  # noqa: BLE001 - raised again in the main thread
                results.put(bug)

    # Daemons: Ctrl-C ends us now, not after some hundred megabytes. Docker drops half an image.
    for _ in range(min(_AT_ONCE, len(pushes))):
        threading.Thread(target=work, daemon=True).start()
    done: dict[str, Outcome] = {}
    while len(done) < len(pushes):
        result = results.get()
        if isinstance(result, BaseException):
            raise result
        done[result.name] = result
    return [done[name] for name in pushes]


def _one(name: str, push: Push, limits: SandboxLimits, display: Display) -> Outcome:
    try:
        sent = image_push.push(
            push, limits, lambda so_far, total: display.show(name, so_far, total)
        )
    except errors.SpawnError as error:
        return Outcome(name=name, error=error)
    return Outcome(name=name, sent=sent)


def _problem(name: str, error: errors.SpawnError) -> Problem:
    found = problems.from_error(error)
    return Problem(found.exit_code, found.code, f"{name}: {found.message}", *found.advice)


@contextmanager
def _display() -> Iterator[Display]:
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
    """In a terminal. A bar is there from a host's first byte on: who has the image gets none."""

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
    """In a pipe or a log: a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[str, int] = {}

    def show(self, name: str, sent: int, total: int) -> None:
        percent = 100 * sent // max(total, 1) // _LINE_EVERY * _LINE_EVERY
        if percent > self._said.get(name, -1):
            self._said[name] = percent
            self._console.print(f"runtime image -> {name}: {percent:3d}%")
