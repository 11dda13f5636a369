"""A Python and a Node that wait, with what most apps import, to become the app.

`work.py` keeps them, `app.py` takes one when it starts an app. An interpreter that has loaded
FastAPI answers in a tenth of the time. Each is started as the app's process would be, for one slot,
and gets its command over standard input: nothing is forked, and nothing is left of the wait.
`runtime-image/interpreters` has what they run.

They take memory and processor time from the whole host. So there is one only while its host has
plenty of both, and no app needs one: then apps are started plainly.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.apps.child import Child, Fence
from agent.console import log
from agent.layout import INTERPRETERS
from agent.serving.site import Slot

LOOK_INTERVAL_S = 1.0
IDLE_LOOK_INTERVAL_S = 5.0
"""While none is missing."""
FREE_TO_START = 0.25
FREE_TO_STAY = 0.15
"""Parts of the host's memory that are available. Between them nothing changes."""
IDLE_TO_START = 0.5
"""Part of its processors' time since the last look. With just as much one is never started, with
all of it at once, and between them the more likely: all sandboxes of a host see the same."""

_COMMANDS = {
    "python": ("python", f"{INTERPRETERS}/python.py"),
    "node": ("node", "--require", f"{INTERPRETERS}/node.js", "app"),
}
_KINDS = {"python3": "python", "uvicorn": "python", "flask": "python", "gunicorn": "python"}
"""What the first word of a command runs on, if its name doesn't say so."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """What the host has to spare."""

    memory: float  # the part of it that is available
    processors: float  # the part of their time that nobody used since the last look


class Interpreters:
    """At most one interpreter of each kind. Without `keep` there is none, and `take` gives none."""

    def __init__(
        self,
        environment: Callable[[int], dict[str, str]],
        *,
        look: Callable[[], Room] | None = None,
        commands: dict[str, Sequence[str]] | None = None,
    ) -> None:
        """`environment` is that of an app on a port. `look` says what the host has to spare."""
        self._environment = environment
        self._look = look or HostLook()
        self._commands = dict(_COMMANDS) if commands is None else commands
        self._slot: Slot | None = None
        self._waiting: dict[str, Child] = {}
        self._dismissed: list[Child] = []
        self._changed = asyncio.Event()  # there is something to do before the next look

    def wait_for(self, slot: Slot) -> None:
        """The next app is started in this slot."""
        if slot != self._slot:
            self._dismiss_waiting()
            self._slot = slot
            self._changed.set()

    def dismiss(self) -> None:
        """No app is to be started."""
        self._slot = None
        self._dismiss_waiting()

    def take(
        self, command: Sequence[str], slot: Slot, on_line: Callable[[str], None]
    ) -> Child | None:
        """The app's process, if one waits that can become it."""
        kind = _kind_of(command)
        if slot != self._slot or kind not in self._waiting:
            return None
        child = self._waiting.pop(kind)
        if child.exited.done():
            return None
        order = {"command": list(command), "folder": slot.folder}
        child.order(json.dumps(order).encode() + b"\n", on_line)
        log("interpreter_taken", kind=kind)
        return child

    async def keep(self) -> None:
        """Start and end interpreters until cancelled; then none waits any more."""
        self._changed.clear()
        pause_s = LOOK_INTERVAL_S  # first of all: an assignment may be there already
        try:
            while True:
                # At random, so that the sandboxes of a host don't look in step.
                await self._wait(pause_s * (0.5 + os.urandom(1)[0] / 256))
                await self._end_dismissed()
                if self._slot is None:
                    pause_s = math.inf
                else:
                    is_missing = self._act(self._slot, self._look())
                    pause_s = LOOK_INTERVAL_S if is_missing else IDLE_LOOK_INTERVAL_S
        finally:
            self.dismiss()
            await self._end_dismissed()

    async def _wait(self, pause_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s if pause_s < math.inf else None):
                await self._changed.wait()
        self._changed.clear()

    def _act(self, slot: Slot, room: Room) -> bool:
        """Start at most one, or dismiss those that there is no room for. True: one is missing."""
        ended = [kind for kind, child in self._waiting.items() if child.exited.done()]
        for kind in ended:
            self._dismissed.append(self._waiting.pop(kind))
            del self._commands[kind]  # something is wrong with it, or with this machine
        if room.memory < FREE_TO_STAY:
            self._dismiss_waiting()
        missing = [kind for kind in self._commands if kind not in self._waiting]
        chance = (room.processors - IDLE_TO_START) / (1 - IDLE_TO_START)
        if missing and room.memory >= FREE_TO_START and os.urandom(1)[0] / 256 < chance:
            self._start(missing.pop(0), slot)
        return bool(missing)

    def _dismiss_waiting(self) -> None:
        if self._waiting:
            self._dismissed += self._waiting.values()
            self._waiting.clear()
            self._changed.set()

    def _start(self, kind: str, slot: Slot) -> None:
        try:
            # It begins where the app will be, although the app's folder replaces this one.
            os.makedirs(slot.folder, exist_ok=True)
            self._waiting[kind] = Child(
                self._commands[kind],
                folder=slot.folder,
                environment=self._environment(slot.port),
                on_line=_ignore,
                fence=Fence(),
                has_order=False,
            )
        except OSError as error:
            log("interpreter_failed", kind=kind, error=error.strerror)
            del self._commands[kind]

    async def _end_dismissed(self) -> None:
        while self._dismissed:
            await self._dismissed[-1].stop()
            self._dismissed.pop()


class HostLook:
    """Reads what the host has to spare, from /proc: that is the host's own, also in a container."""

    def __init__(self) -> None:
        self._before = _read("/proc/stat")

    def __call__(self) -> Room:
        before, self._before = self._before, _read("/proc/stat")
        return Room(
            memory=available_part(_read("/proc/meminfo")),
            processors=idle_part(before, self._before),
        )


def available_part(meminfo: str) -> float:
    """The part of the memory that is available, from /proc/meminfo (see proc(5)); 0 if unknown."""
    lines = (line.split() for line in meminfo.splitlines())
    sizes = {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
    total = sizes.get("MemTotal:", 0)
    return sizes.get("MemAvailable:", 0) / total if total else 0.0


def idle_part(before: str, after: str) -> float:
    """The idle part of all processors' time between two readings of /proc/stat; 0 if unknown."""
    times = [int(b) - int(a) for a, b in zip(_times(before), _times(after), strict=False)]
    total = sum(times)
    return sum(times[3:5]) / total if total > 0 else 0.0  # idle, and waiting for a disk


def _times(stat: str) -> list[str]:
    """Of all processors together. The last two, of guests, are part of the first two."""
    words = stat.partition("\n")[0].split()
    return words[1:9] if words[:1] == ["cpu"] else []


def _read(path: str) -> str:
    try:
        with open(path) as source:
            return source.read()
    except OSError:
        return ""


def _kind_of(command: Sequence[str]) -> str:
    """What it runs on; empty if only a plain start does it."""
    kind = _KINDS.get(command[0], command[0])
    if kind == "node" and (len(command) == 1 or command[1].startswith("-")):
        return ""  # an option, which only a new process takes
    return kind


def _ignore(_line: str) -> None:
    pass
