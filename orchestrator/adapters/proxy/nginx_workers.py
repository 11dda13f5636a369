"""nginx's master and workers, as /proc shows them (Linux only). NginxProxy uses this."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from orchestrator.domain import errors


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


def is_running(process: Process) -> bool:
    """Return whether the process has not ended. A zombie has."""
    return _state(process) not in ("", "Z", "X")


def may_accept(worker: Process) -> bool:
    """Return whether the worker may still accept connections.

    A worker that shuts down changes its title before it closes its listeners, and accepts nothing
    in between. So the title is a safe sign.
    """
    return is_running(worker) and b"shutting down" not in _title(worker.pid)


def is_idle(worker: Process) -> bool:
    """Return whether the worker sleeps or has ended.

    nginx sleeps only while it waits for events. A sleeping worker has finished handling all
    events that it took before.
    """
    return _state(worker) in ("", "S", "Z", "X")


def ask_to_quit(worker: Process) -> None:
    """Tell a worker that shuts down to do so. It changes nothing but that it logs `quit_line`."""
    if is_running(worker):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGQUIT)


def quit_line(worker: Process) -> bytes:
    """The end of the line that a worker logs when it was told to quit.

    It does so between two turns, and not in its handler of the signal.
    """
    return b" %d#%d: gracefully shutting down\n" % (worker.pid, worker.pid)


def send_signal(process: Process, number: int) -> None:
    """Raises errors.ProxyUnavailable when the process has ended or belongs to another user."""
    try:
        os.kill(process.pid, number)
    except ProcessLookupError as error:
        raise errors.ProxyUnavailable(f"nginx (pid {process.pid}) has ended") from error
    except PermissionError as error:
        raise errors.ProxyUnavailable(
            f"not allowed to signal nginx (pid {process.pid}): run both as the same user"
        ) from error


def _state(process: Process) -> str:
    """Return the state letter of proc(5), or "" when the process has ended."""
    stat = _stat(process.pid)
    return stat[0] if stat is not None and int(stat[19]) == process.started else ""


def _stat(pid: int) -> list[str] | None:
    """Return the fields of proc(5) stat from the third one (state) on.

    The second field is the process's name, which may contain any character, so split after it.
    """
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
