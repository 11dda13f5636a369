"""Who holds a lease: the process, its machine, and the state folder of its control plane.

A holder's id has five parts with colons between them: the host name, the boot and the namespace of
process numbers, the process number, when that process started, and the state folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from orchestrator.slim import structlog

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A holder's id in its parts. Any of them may be empty: another release has written it."""

    host: str = ""
    namespace: str = ""
    pid: str = ""
    started_at: str = ""
    folder: str = ""

    def __str__(self) -> str:
        return ":".join((self.host, self.namespace, self.pid, self.started_at, self.folder))

    @property
    def pid_here(self) -> int | None:
        """Its process number, if it is or was a process of this boot and namespace."""
        if self.host != socket.gethostname() or self.namespace != _pid_namespace():
            return None
        return int(self.pid) if self.pid.isdigit() and self.started_at else None

    @property
    def has_died(self) -> bool:
        """Whether that process has certainly ended. False if we can't tell: it belongs to another
        machine, another container, or an earlier boot."""
        pid = self.pid_here
        return pid is not None and _started_at(pid) != self.started_at

    def is_elsewhere(self, ours: Holder) -> bool:
        """Whether it belongs to another control plane than `ours`: on another machine, in another
        container, of an earlier boot, or with another state folder."""
        if self.folder and self.folder != ours.folder:
            return True
        return (self.host, self.namespace) != (ours.host, ours.namespace)

    def end_if_stopped(self) -> None:
        """Kill a former leader on this machine that is still there: it was stopped, or hangs.

        Should it go on one day, it would end itself at its next step. But until then it may hold
        the lock of the routes.
        """
        pid = self.pid_here
        if pid is None or self.has_died or pid == os.getpid():
            return
        log.warning("former_leader_killed", holder=str(self))
        with contextlib.suppress(OSError):  # it has just ended, or belongs to another user
            os.kill(pid, signal.SIGKILL)


def parse(text: str) -> Holder:
    """The holder with this id. One that is nothing of ours has no process."""
    host, namespace, pid, started_at, folder, *rest = (*text.split(":"), "", "", "", "", "")
    if any(rest):
        return Holder(host=host)
    return Holder(host=host, namespace=namespace, pid=pid, started_at=started_at, folder=folder)


def holder_of(pid: int, state_dir: Path | None = None) -> Holder:
    """The id of a process of this machine, which no other process ever has, on any machine."""
    return Holder(
        host=socket.gethostname(),
        namespace=_pid_namespace(),
        pid=str(pid),
        started_at=_started_at(pid),
        folder="" if state_dir is None else _id_of(state_dir),
    )


def _id_of(folder: Path) -> str:
    """Tells a folder from every other one of this machine."""
    stat = folder.stat()
    return f"{stat.st_dev:x}.{stat.st_ino:x}"


def _pid_namespace() -> str:
    """The scope in which a process number is unique: this boot, and the container, if any."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot_id}.{Path('/proc/self/ns/pid').stat().st_ino}"


def _started_at(pid: int) -> str:
    """When the process started, in ticks since the boot: process numbers are reused. Empty if there
    is no such process. See proc(5), field 22 of stat."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state == "Z" else fields[18]
