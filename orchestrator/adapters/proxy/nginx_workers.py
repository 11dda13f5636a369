"""nginx's master and workers as /proc shows them (Linux only). Used by adapters.nginx."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.domain import errors


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process; the start time tells it from a later one with the same pid."""

    pid: int
    started: int  # clock ticks after boot


def master(pid_file: Path) -> Process:
    """The running master. Raises errors.ProxyUnavailable when there is none: a pid file outlives
    kill -9, and its number may be somebody else's by now."""
    try:
        pid = int(pid_file.read_text("ascii"))
    except (FileNotFoundError, ValueError) as error:
        raise errors.ProxyUnavailable(f"nginx is not running: no pid in {pid_file}") from error
    stat = _stat(pid)
    if stat is None or not _title(pid).startswith(b"nginx: master process"):
        raise errors.ProxyUnavailable(f"nginx is not running: pid {pid} of {pid_file} isn't it")
    return Process(pid=pid, started=int(stat[19]))


def children(parent: Process) -> list[Process]:
    """All children. Reads the whole of /proc: the kernel's own list of a task's children may leave
    some out while others end."""
    found = []
    for entry in os.scandir("/proc"):
        stat = _stat(int(entry.name)) if entry.name.isdigit() else None
        if stat is not None and int(stat[1]) == parent.pid:
            found.append(Process(pid=int(entry.name), started=int(stat[19])))
    return found


def alive(process: Process) -> bool:
    """Whether it has not ended."""
    return _state(process) not in ("", "Z", "X")


def accepts(worker: Process) -> bool:
    """Whether it may still take connections: nginx sets the other title before it closes its
    listeners, and takes none in between."""
    return alive(worker) and b"shutting down" not in _title(worker.pid)


def rested(worker: Process) -> bool:
    """Whether it is gone or waits for events now, which is where nginx sleeps: what it had begun
    to handle before is done."""
    return _state(worker) in ("", "S", "Z", "X")


def send(process: Process, number: int) -> None:
    """Raises errors.ProxyUnavailable when it is gone or another user's."""
    try:
        os.kill(process.pid, number)
    except ProcessLookupError as error:
        raise errors.ProxyUnavailable(f"nginx (pid {process.pid}) has ended") from error
    except PermissionError as error:
        raise errors.ProxyUnavailable(
            f"not allowed to signal nginx (pid {process.pid}): run both as the same user"
        ) from error


def _state(process: Process) -> str:
    stat = _stat(process.pid)
    return stat[0] if stat is not None and int(stat[19]) == process.started else ""


def _stat(pid: int) -> list[str] | None:
    """Fields of proc(5) stat from the third (state) on; the second may hold any character."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
