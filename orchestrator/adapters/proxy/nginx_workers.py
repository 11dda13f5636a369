"""nginx's master and workers, as /proc shows them (Linux only). NginxProxy uses this."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from orchestrator.domain import errors

_ENDED = ("", "Z", "X")
_READ_BYTES = 65536
_PROC = "/proc"


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process. Its start time tells it from a later process with the same pid."""

    pid: int
    started: int  # clock ticks after boot


def find_master(pid_file: Path) -> Process:
    """Return the running master.

    Raises errors.ProxyUnavailable when there is none. The pid file alone proves nothing: it
    survives kill -9, and another process may have that pid now.
    """
    try:
        pid = int(pid_file.read_text("ascii"))
    except (FileNotFoundError, ValueError) as error:
        raise errors.ProxyUnavailable(f"nginx is not running: no pid in {pid_file}") from error
    stat = _stat(pid)
    if stat is None or not _title(pid).startswith(b"nginx: master process"):
        raise errors.ProxyUnavailable(
            f"nginx is not running: pid {pid} in {pid_file} is not its master"
        )
    return Process(pid=pid, started=int(stat[19]))


def list_children(parent: Process, *, proc: str = _PROC) -> list[Process]:
    """Return all children of a process that has one thread.

    The kernel's own list of them misses one if a child that it has named is gone before it goes on
    (`get_children_pid` in the kernel's fs/proc/array.c). So the list counts only if all whom it
    names are still there afterwards. Otherwise, or without such a list, the whole of /proc is read,
    which takes longer the more sandboxes there are.
    """
    return _listed_children(parent, proc) or _searched_children(parent, proc)


def _listed_children(parent: Process, proc: str) -> list[Process]:
    """The children by the kernel's list; none if it can't be trusted."""
    names = _read(f"{proc}/{parent.pid}/task/{parent.pid}/children").split()
    children = [_child(parent, int(name), proc) for name in names]
    present = [child for child in children if child is not None]
    return present if len(present) == len(names) else []


def _searched_children(parent: Process, proc: str) -> list[Process]:
    pids = [int(entry.name) for entry in os.scandir(proc) if entry.name.isdigit()]
    children = [_child(parent, pid, proc) for pid in pids]
    return [child for child in children if child is not None]


def _child(parent: Process, pid: int, proc: str) -> Process | None:
    """The process with this pid, if it is a child of that one."""
    stat = _stat(pid, proc)
    if stat is None or int(stat[1]) != parent.pid:
        return None
    return Process(pid=pid, started=int(stat[19]))


def is_idle(worker: Process) -> bool:
    """Return whether the worker sleeps or has ended.

    nginx sleeps only while it waits for events. A sleeping worker has finished handling all
    events that it took before.
    """
    return _state(worker) in ("S", *_ENDED)


def ask_for_sign(worker: Process) -> None:
    """Tell a worker to reopen its log. All that comes of it is the line `sign_of` it: the file is
    the same one, and a worker that may not open it goes on with the one that it has."""
    if _state(worker) not in _ENDED:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(worker.pid, signal.SIGUSR1)


def sign_of(worker: Process) -> bytes:
    """The end of the line that a worker logs when it was told to reopen its log.

    It does so between two turns, and not in its handler of the signal.
    """
    return b" %d#%d: reopening logs\n" % (worker.pid, worker.pid)


def _state(process: Process) -> str:
    """Return the state letter of proc(5), or "" when the process has ended."""
    stat = _stat(process.pid)
    return stat[0] if stat is not None and int(stat[19]) == process.started else ""


def _stat(pid: int, proc: str = _PROC) -> list[str] | None:
    """Return the fields of proc(5) stat from the third one (state) on.

    The second field is the process's name, which may contain any character, so split after it.
    """
    text = _read(f"{proc}/{pid}/stat")
    return text.rpartition(b")")[2].decode("ascii").split() if text else None


def _title(pid: int) -> bytes:
    return _read(f"/proc/{pid}/cmdline")


def _read(path: str) -> bytes:
    """A file of a process; nothing if that has ended, or if the kernel has no such file."""
    # Plain calls: all processes of the machine may be read while somebody waits.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return b""
    try:
        return b"".join(iter(lambda: os.read(descriptor, _READ_BYTES), b""))
    except ProcessLookupError:
        return b""
    finally:
        os.close(descriptor)
