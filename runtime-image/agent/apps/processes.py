"""Which processes of the sandbox belong to which child, read from /proc. Used by `child.py`.

A program that wants to outlive its end leaves its process group, its session and its parent. Since
the agent adopts whatever loses its parent (`adopt_orphans`), nothing can get out of its sight.
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
    pid: int
    parent: int
    session: int
    zombie: bool = False


class _Adoption:
    """Whether orphans come to us. Where they don't, our other children are none of our business."""

    active = False


def adopt_orphans() -> None:
    """From now on processes that lose their parent become children of this one."""
    _Adoption.active = ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def survivors(ended: int, leaders: Collection[int]) -> set[int]:
    """Who is left of the child `ended`, and of no child at all. `leaders`: the living children.

    Zombies among the adopted are reaped: they would count against the limit of processes.
    """
    processes = list(snapshot())
    strays = stray(processes, os.getpid(), leaders) if _Adoption.active else set()
    _reap(process.pid for process in processes if process.zombie and process.pid in strays)
    alive = {process.pid for process in processes if not process.zombie}
    return (in_session(processes, ended) | strays) & alive


def reap_adopted(leaders: Collection[int]) -> int:
    """Reap who ended; return how many processes the sandbox has."""
    processes = list(snapshot())
    if _Adoption.active:
        me = os.getpid()
        _reap(p.pid for p in processes if p.zombie and p.parent == me and p.pid not in leaders)
    return len(processes)


def in_session(processes: Iterable[Process], leader: int) -> set[int]:
    """The leader and whoever didn't leave its session."""
    return {process.pid for process in processes if process.session == leader}


def stray(processes: Iterable[Process], me: int, leaders: Collection[int]) -> set[int]:
    """Adopted processes that are in no living child's session, with all their descendants."""
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    waiting = [
        child
        for child in children.get(me, ())
        if child.pid not in leaders and child.session not in leaders and child.session != me
    ]
    found: set[int] = set()
    while waiting:
        process = waiting.pop()
        if process.pid not in found:
            found.add(process.pid)
            waiting += children.get(process.pid, ())
    return found


def snapshot() -> Iterator[Process]:
    """Every process that can be seen. One that ends meanwhile is left out."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as source:
            yield parse_stat(source.read())


def parse_stat(line: bytes) -> Process:
    """A line of /proc/PID/stat (proc(5)). The name in brackets may hold brackets and blanks."""
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
