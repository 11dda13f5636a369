"""Leadership of one daemon at a time: held in the database, renewed three times in its length."""

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
_ATTEMPT_S = 0.5

log = structlog.get_logger()


class Lease:
    """The daemon's. A holder that died on this machine is not waited for."""

    def __init__(self, deps: Deps, stop: threading.Event) -> None:
        self._deps = deps
        self._stop = stop
        self._holder = holder_of(os.getpid())

    def acquire(self) -> bool:
        """Wait until nobody else leads; False when told to stop before that."""
        waiting = False
        while not self._stop.is_set():
            if self._hold():
                log.info("leading", holder=self._holder)
                return True
            if self._bury():
                continue
            if not waiting:
                log.info("another daemon leads; waiting for its lease to run out")
                waiting = True
            self._stop.wait(_ATTEMPT_S)
        return False

    def keep(self, also: Callable[[], bool]) -> None:
        """Renew until told to stop, until the lease is lost, or until `also` says so."""
        missed = 0
        while not self._stop.wait(_RENEW_S) and not also():
            try:
                held = self._hold()
            except errors.Temporary:
                missed += 1
                held = missed * _RENEW_S < _LEASE_S
            else:
                missed = 0 if held else missed
            if not held:
                log.error("the lease is lost: another daemon may lead")
                return

    def release(self) -> None:
        try:
            self._deps.store.leases.release(LEASE, self._holder)
        except errors.Temporary as error:
            log.warning("the lease runs out by itself", error=str(error))

    def _hold(self) -> bool:
        now = self._deps.clock.now()
        until = now + timedelta(seconds=_LEASE_S)
        return self._deps.store.leases.hold(LEASE, self._holder, until, now)

    def _bury(self) -> bool:
        """Give back the lease of a holder that is dead for sure; False when it may live."""
        holder = self._deps.store.leases.holder(LEASE, self._deps.clock.now())
        if holder is None or not has_died(holder):
            return False
        log.info("the daemon that led has died", holder=holder)
        self._deps.store.leases.release(LEASE, holder)
        return True


def holder_of(pid: int) -> str:
    """A process as others may tell it from all that ever were, on whatever machine."""
    return f"{socket.gethostname()}:{_world()}:{pid}:{_started_at(pid)}"


def has_died(holder: str) -> bool:
    """Whether that process is gone. Of one that isn't of our world of processes (another machine,
    another container, before the last boot) nothing is known: False."""
    host, world, pid, started_at, *rest = (*holder.split(":"), "", "", "", "")
    if host != socket.gethostname() or world != _world() or not pid.isdigit() or not started_at:
        return False
    return not any(rest) and _started_at(int(pid)) != started_at


def _world() -> str:
    """This boot's numbering of processes: the kernel's run, and the container, if any."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"


def _started_at(pid: int) -> str:
    """When a process began, in ticks since the boot: numbers of processes are used again. Empty
    when there is none. See proc(5), field 22 of stat."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state == "Z" else fields[18]
