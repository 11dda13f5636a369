"""Runs one command of the model in the app's folder. Called by `workshop.py`.

Time, output, memory and processes are bounded, and no process of the command is left afterwards.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.apps import processes
from agent.apps.child import Child, Fence, describe_exit
from agent.apps.loglines import clean

HEAD_CHARS = 4_000
TAIL_CHARS = 8_000
CENSUS_INTERVAL_S = 0.25
MAX_PROCESSES = 64
"""At once, of a command and all its descendants."""


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """How a command ended, for `the command ...`, and its output."""

    ended: str
    status: int | None  # its exit status; None: it was stopped
    output: str


class Transcript:
    """Keeps the beginning and the end of an output of any length."""

    def __init__(self) -> None:
        self._head: list[str] = []
        self._head_left = HEAD_CHARS
        self._tail: deque[str] = deque()
        self._tail_chars = 0
        self._dropped = 0

    def add(self, line: str) -> None:
        line = clean(line)
        if self._head_left > 0:
            self._head.append(line)
            self._head_left -= len(line) + 1
            return
        self._tail.append(line)
        self._tail_chars += len(line) + 1
        while self._tail_chars > TAIL_CHARS:
            self._tail_chars -= len(self._tail.popleft()) + 1
            self._dropped += 1

    @property
    def text(self) -> str:
        gap = [f"[... {self._dropped} lines left out ...]"] if self._dropped else []
        return "\n".join([*self._head, *gap, *self._tail])


async def run_command(
    command: Sequence[str], *, folder: str, environment: Mapping[str, str], limit_s: float
) -> CommandResult:
    """Run it until it ends, or until it reaches a limit."""
    transcript = Transcript()
    try:
        child = Child(
            command,
            folder=folder,
            environment=environment,
            on_line=transcript.add,
            fence=Fence(),
        )
    except OSError as error:
        return CommandResult(ended=f"can't be started: {error.strerror}", status=None, output="")
    try:
        stop_reason = await _wait_until_ended(child, limit_s)
    finally:
        await child.stop()
    if stop_reason:
        return CommandResult(ended=stop_reason, status=None, output=transcript.text)
    status = child.exited.result()
    return CommandResult(ended=describe_exit(status), status=status, output=transcript.text)


async def _wait_until_ended(child: Child, limit_s: float) -> str:
    """The reason to stop it; empty if it ended by itself."""
    before = processes.reap_adopted(Child.leaders)
    try:
        async with asyncio.timeout(limit_s):
            while not child.exited.done():
                await asyncio.wait({child.exited}, timeout=CENSUS_INTERVAL_S)
                if processes.reap_adopted(Child.leaders) - before > MAX_PROCESSES:
                    return f"was stopped: it had more than {MAX_PROCESSES} processes"
    except TimeoutError:
        return f"was stopped: it didn't end within {limit_s:g} s"
    return ""
