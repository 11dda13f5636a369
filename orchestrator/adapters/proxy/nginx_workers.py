"""nginx's master and workers, as /proc shows them (Linux only). NginxProxy uses this."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from orchestrator.domain import errors

_ENDED = ("", "Z", "X")


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


def list_children(parent: Process) -> list[Process]:
    """Return all children of a process.

    Reads the whole of /proc: the kernel's own list of a task's children may be incomplete while
    some of them end.
    """
    processes = []
    for entry in os.scandir("/proc"):
        stat = _stat(int(entry.name)) if entry.name.isdigit() else None
        if stat is not None and int(stat[1]) == parent.pid:
            processes.append(Process(pid=int(entry.name), started=int(stat[19])))
    return processes


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


def _stat(pid: int) -> list[str] | None:
    """Return the fields of proc(5) stat from the third one (state) on.

    The second field is the process's name, which may contain any character, so split after it.
    """
    # Plain calls: all processes of the machine are read while somebody waits.
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        text = os.read(descriptor, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)
    return text.rpartition(b")")[2].decode("ascii").split()


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
