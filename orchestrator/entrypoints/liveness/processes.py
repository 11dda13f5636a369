"""Which supervised processes have given no sign of life for too long. The supervisor ends those.

A sign of a child is an answer to its ping, or a heartbeat. Of the processes that it has started
itself (nginx's and RQ's workers) a sign is a heartbeat too, or just that they are not stopped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.domain.watchdog import Watchdog
from orchestrator.entrypoints.children import Child
from orchestrator.entrypoints.liveness.heartbeats import HeartbeatSocket
from orchestrator.entrypoints.liveness.pings import PAUSE_S, OpenPing

LATE_S = 5.0  # without a look of ours: several ticks, or the copy of a large log
_PINGS_MIN = 8  # within the longest silence: one answer may be late, or be lost
_DOUBLINGS_MAX = 3
_WELL_S = 600.0  # a process that has run for so long is no victim of the machine's load
_STOPPED = "T"  # by a signal. A debugger's stop is "t": that is somebody's wish


@dataclass(frozen=True, kw_only=True)
class Hung:
    """A process that has to be ended."""

    name: str  # of the child
    pid: int
    is_child: bool  # else it is one of the child's own processes
    silence_s: float


@dataclass(kw_only=True)
class _Watched:
    """A running child, and when it and each of its processes gave the last sign."""

    child: Child
    pid: int
    ping: OpenPing | None
    begun_at: float
    sign_at: float
    members: dict[int, float] = field(default_factory=dict)


class ProcessWatch:
    """All supervised processes of this machine. `look` never blocks."""

    def __init__(self, heartbeats: HeartbeatSocket, limit_s: float) -> None:
        """`limit_s`: the longest silence of a process that is well."""
        self._heartbeats = heartbeats
        self._limit_s = limit_s
        self._watchdog = Watchdog(LATE_S)
        self._watched: dict[str, _Watched] = {}
        self._hangs: dict[str, int] = {}  # of each child, until it has been well for a while

    def begin(self, child: Child, pid: int, now: float) -> None:
        """Watch this process of the child from now on. Its first sign may take longer."""
        self.end(child.name)
        patience_s = max(0.0, child.ready_within_s - self._limit_s)
        pause_s = min(PAUSE_S, self._limit_s / _PINGS_MIN)
        ping = None if child.ping is None else OpenPing(child.ping, pause_s)
        self._watched[child.name] = _Watched(
            child=child, pid=pid, ping=ping, begun_at=now, sign_at=now + patience_s
        )

    def end(self, name: str) -> None:
        """The child's process has ended."""
        watched = self._watched.pop(name, None)
        if watched is not None and watched.ping is not None:
            watched.ping.close()

    def close(self) -> None:
        """Watch nothing any more."""
        for name in list(self._watched):
            self.end(name)
        self._heartbeats.close()

    def look(self, now: float) -> Sequence[Hung]:
        """Look at all processes. Call this at each tick; `now` is of the monotonic clock."""
        self._watchdog.look(now)
        beats = self._heartbeats.read()
        hung: list[Hung] = []
        for watched in self._watched.values():
            answers = watched.pid in beats if watched.ping is None else watched.ping.advance(now)
            if answers and not _is_stopped(watched.pid):
                watched.sign_at = max(watched.sign_at, now)
            members = _children_of(watched.pid)
            watched.members = {
                pid: now
                if not _is_stopped(pid) and (pid in beats or not watched.child.members_beat)
                else watched.members.get(pid, now)
                for pid in members
            }
            hung += self._find_hung(watched, now)
        return hung

    def _find_hung(self, watched: _Watched, now: float) -> Sequence[Hung]:
        """The processes that are silent for too long. Each is named once: what we make of it takes
        a moment, and so it gets as long again."""
        hung = []
        limit_s = self._limit_of(watched, now)
        for pid, sign_at in {watched.pid: watched.sign_at, **watched.members}.items():
            silence_s = self._watchdog.silence_s(sign_at, now)
            if silence_s <= limit_s:
                continue
            name = watched.child.name
            self._hangs[name] = self._hangs.get(name, 0) + 1
            is_child = pid == watched.pid
            if is_child:
                watched.sign_at = now
            else:
                watched.members[pid] = now
            hung.append(Hung(name=name, pid=pid, is_child=is_child, silence_s=silence_s))
        return hung

    def _limit_of(self, watched: _Watched, now: float) -> float:
        """The longest silence of this child. It doubles with each hang: where the machine is just
        too busy, killing and starting again and again would make it worse."""
        if now - watched.begun_at > _WELL_S:
            self._hangs.pop(watched.child.name, None)
        hangs = self._hangs.get(watched.child.name, 0)
        return self._limit_s * 2.0 ** min(hangs, _DOUBLINGS_MAX)


def _is_stopped(pid: int) -> bool:
    """Whether a signal has stopped it. See proc(5), field 3 of stat."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] == [_STOPPED]


def _children_of(pid: int) -> Sequence[int]:
    with contextlib.suppress(OSError):
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
