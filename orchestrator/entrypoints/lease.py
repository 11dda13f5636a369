"""The lease that makes one daemon the leader. daemon.py holds it.

The lease is a row of the database. It lasts 6 s, and its holder renews it every 2 s.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from orchestrator.domain import errors
from orchestrator.services.deps import Deps
from orchestrator.slim import structlog

LEASE = "daemon"
_LEASE_S = 6.0
_RENEW_S = 2.0
_RETRY_S = 0.5

log = structlog.get_logger()


class Lease:
    """The daemon's lease. Nobody waits for a holder that died on this machine."""

    def __init__(self, deps: Deps, stop: threading.Event) -> None:
        self._deps = deps
        self._stop = stop
        self._holder = holder_of(os.getpid())

    def acquire(self) -> bool:
        """Wait until no other daemon holds the lease, and take it. False if `stop` is set first."""
        waiting = False
        while not self._stop.is_set():
            reason = "another daemon leads"
            try:
                if self._hold():
                    log.info("lease_acquired", holder=self._holder)
                    return True
                if self._release_dead():
                    continue
            except errors.StorageUnavailable as error:
                reason = str(error)
            if not waiting:
                log.info("lease_awaited", reason=reason)
                waiting = True
            self._stop.wait(_RETRY_S)
        return False

    def keep(self, stop_early: Callable[[], bool]) -> None:
        """Renew the lease until `stop` is set, `stop_early` is true, or the lease is lost."""
        missed = 0
        while not self._stop.wait(_RENEW_S) and not stop_early():
            try:
                held = self._hold()
            except errors.StorageUnavailable:
                held = True  # the database's disk is full: nobody else can take the lease either
            except errors.Temporary:
                missed += 1
                held = missed * _RENEW_S < _LEASE_S
            else:
                missed = 0 if held else missed
            if not held:
                log.error("lease_lost", reason="another daemon may lead")
                return

    def release(self) -> None:
        try:
            self._deps.store.leases.release(LEASE, self._holder)
        except errors.Temporary as error:
            # The lease then expires by itself.
            log.warning("lease_release_failed", error=str(error))

    def _hold(self) -> bool:
        now = self._deps.clock.now()
        until = now + timedelta(seconds=_LEASE_S)
        return self._deps.store.leases.hold(LEASE, self._holder, until, now)

    def _release_dead(self) -> bool:
        """Release the lease of a holder that has certainly died. False if it may be alive."""
        holder = self._deps.store.leases.holder(LEASE, self._deps.clock.now())
        if holder is None or not has_died(holder):
            return False
        log.info("leader_died", holder=holder)
        self._deps.store.leases.release(LEASE, holder)
        return True


def holder_of(pid: int) -> str:
    """An id of the process that no other process ever has, on any machine."""
    return f"{socket.gethostname()}:{_pid_namespace()}:{pid}:{_started_at(pid)}"


def has_died(holder: str) -> bool:
    """Whether that process has certainly ended. False if we can't tell: it belongs to another
    machine, another container, or an earlier boot."""
    host, namespace, pid, started_at, *rest = (*holder.split(":"), "", "", "", "")
    if host != socket.gethostname() or namespace != _pid_namespace():
        return False
    if not pid.isdigit() or not started_at:
        return False
    return not any(rest) and _started_at(int(pid)) != started_at


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
