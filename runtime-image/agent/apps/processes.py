"""Which processes of the sandbox belong to which child, read from /proc. Used by `child.py`.

A program that tries to survive leaves its process group, its session and its parent. The agent
adopts every process that loses its parent (`adopt_orphans`), so it still finds all of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True, kw_only=True)
class Process:
    """One line of /proc/PID/stat."""

    pid: int
    parent: int
    session: int
    zombie: bool = False


class _Adoption:
    """Whether we adopt orphans. If not, our other children are no strays: leave them alone."""

    active = False


def adopt_orphans() -> None:
    """From now on processes that lose their parent become children of this process."""
    _Adoption.active = ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def survivors(ended: int, leaders: Collection[int]) -> set[int]:
    """Pids that are left of the child `ended`, and strays. `leaders`: pids of the living children.

    Zombies among the strays are reaped, because they count against the limit of processes.
    """
    processes = list(snapshot())
    strays = find_strays(processes, os.getpid(), leaders) if _Adoption.active else set()
    _reap(process.pid for process in processes if process.zombie and process.pid in strays)
    alive = {process.pid for process in processes if not process.zombie}
    return (in_session(processes, ended) | strays) & alive


def reap_adopted(leaders: Collection[int]) -> int:
    """Reap adopted processes that ended; return how many processes the sandbox has."""
    processes = list(snapshot())
    if _Adoption.active:
        agent_pid = os.getpid()
        _reap(
            process.pid
            for process in processes
            if process.zombie and process.parent == agent_pid and process.pid not in leaders
        )
    return len(processes)


def in_session(processes: Iterable[Process], leader: int) -> set[int]:
    """The pids in the leader's session, its own included."""
    return {process.pid for process in processes if process.session == leader}


def find_strays(processes: Iterable[Process], agent_pid: int, leaders: Collection[int]) -> set[int]:
    """Pids of adopted processes in no living child's session, and of all their descendants."""
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    waiting = [
        child
        for child in children.get(agent_pid, ())
        if child.pid not in leaders and child.session not in leaders and child.session != agent_pid
    ]
    strays: set[int] = set()
    while waiting:
        process = waiting.pop()
        if process.pid not in strays:
            strays.add(process.pid)
            waiting += children.get(process.pid, ())
    return strays


def snapshot() -> Iterator[Process]:
    """All processes that can be seen. One that ends meanwhile is left out."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as source:
            yield parse_stat(source.read())


def parse_stat(line: bytes) -> Process:
    """Read a line of /proc/PID/stat, see proc(5). The name in it may hold brackets and blanks."""
    before, _, after = line.rpartition(b")")
    state, parent, _group, session = after.split(maxsplit=4)[:4]
    return Process(
        pid=int(before.split(maxsplit=1)[0]),
        parent=int(parent),
        session=int(session),
        zombie=state in (b"Z", b"X"),
    )


def _reap(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
