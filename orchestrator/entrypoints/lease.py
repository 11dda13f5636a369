"""The lease that makes one daemon the leader, and the term that it gives. daemon.py holds it.

The lease is a row of the database. It lasts 6 s, and its holder renews it every 2 s. The holder
leads until 6 s after it *sent* the last renewal that succeeded, by a clock that also runs while the
machine sleeps. So it stops before another daemon may begin, whatever it is that made it late.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from orchestrator.domain import errors
from orchestrator.services.deps import Deps
from orchestrator.slim import structlog

LEASE = "daemon"
LEASE_S = 6.0
_RENEW_S = 2.0
_RETRY_S = 0.5
_CHECK_S = 0.2

log = structlog.get_logger()


def seconds_since_boot() -> float:
    """Seconds that nobody can set, the machine's sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """The daemon's lease. Nobody waits for a holder that died on this machine. ports.Term, too."""

    def __init__(
        self,
        deps: Deps,
        stop: threading.Event,
        clock: Callable[[], float] = seconds_since_boot,
    ) -> None:
        """`clock` returns seconds, and never jumps."""
        self._deps = deps
        self._stop = stop
        self._clock = clock
        self._holder = holder_of(os.getpid())
        self._ends_at = float("-inf")  # of our term, by `clock`
        self._is_over = threading.Event()  # never to be renewed again
        self._is_released = threading.Event()
        self._renewer = threading.Thread(target=self._renew_forever, name="lease", daemon=True)
        self.number = 0

    # --- ports.Term -------------------------------------------------------------------------------

    def check(self) -> None:
        if self._is_over.is_set() or self._clock() >= self._ends_at:
            raise errors.TermOver("our lease has run out: another daemon may lead")

    # --- as the daemon uses it --------------------------------------------------------------------

    def acquire(self) -> bool:
        """Wait until no other daemon holds the lease, and take it. False if `stop` is set first."""
        waiting = False
        while not self._stop.is_set():
            reason = "another daemon leads"
            try:
                if self._take():
                    log.info("lease_acquired", holder=self._holder, term=self.number)
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

    def keep(self, stop_early: Callable[[], bool]) -> bool:
        """Renew the lease, from now until `release`. Wait until `stop` is set, `stop_early` is true
        or our term is over. Returns False if it is over."""
        self._renewer.start()
        while not self._stop.wait(_CHECK_S) and not stop_early():
            try:
                self.check()
            except errors.TermOver as error:
                log.error("lease_lost", term=self.number, reason=str(error))
                return False
        return True

    def release(self) -> None:
        self._is_released.set()
        self._is_over.set()
        try:
            self._deps.store.leases.release(LEASE, self._holder)
        except errors.Temporary as error:
            # The lease then expires by itself.
            log.warning("lease_release_failed", error=str(error))

    def _take(self) -> bool:
        """Try to begin a term."""
        before = self._deps.store.leases.last(LEASE)
        if not self._renew():
            return False
        if before is not None and before.holder != self._holder:
            end_stopped(before.holder)
        return True

    def _renew_forever(self) -> None:
        wait_s = _RENEW_S
        while not self._is_released.wait(wait_s):
            sent_at, wait_s = self._clock(), _RENEW_S
            try:
                if not self._renew():
                    self._is_over.set()
                    return
            except errors.StorageUnavailable:
                # The database's disk is full: nobody else can take the lease either.
                self._ends_at = sent_at + LEASE_S
            except errors.Temporary as error:
                log.warning("lease_not_renewed", error=str(error))
                wait_s = _RETRY_S

    def _renew(self) -> bool:
        """Take or renew the lease. The term counts from before the database was asked."""
        sent_at, now = self._clock(), self._deps.clock.now()
        until = now + timedelta(seconds=LEASE_S)
        number = self._deps.store.leases.hold(LEASE, self._holder, until, now)
        if number is None or (self.number and number != self.number):
            return False  # another daemon holds it, or has held it meanwhile
        self.number, self._ends_at = number, sent_at + LEASE_S
        return True

    def _release_dead(self) -> bool:
        """Release the lease of a holder that has certainly died. False if it may be alive."""
        holder = self._deps.store.leases.holder(LEASE, self._deps.clock.now())
        if holder is None or not has_died(holder):
            return False
        log.info("leader_died", holder=holder)
        self._deps.store.leases.release(LEASE, holder)
        return True


def end_stopped(holder: str) -> None:
    """Kill a former leader on this machine that is still there: it was stopped, or hangs.

    Should it go on one day, it would end itself at its next step. But until then it may hold the
    lock of the routes.
    """
    pid = _pid_here(holder)
    if pid is None or has_died(holder):
        return
    log.warning("former_leader_killed", holder=holder)
    with contextlib.suppress(OSError):  # it has just ended, or belongs to another user
        os.kill(pid, signal.SIGKILL)


def holder_of(pid: int) -> str:
    """An id of the process that no other process ever has, on any machine."""
    return f"{socket.gethostname()}:{_pid_namespace()}:{pid}:{_started_at(pid)}"


def has_died(holder: str) -> bool:
    """Whether that process has certainly ended. False if we can't tell: it belongs to another
    machine, another container, or an earlier boot."""
    pid = _pid_here(holder)
    return pid is not None and _started_at(pid) != holder.split(":")[3]


def _pid_here(holder: str) -> int | None:
    """The process number of that holder, if it is or was a process of this boot and namespace."""
    host, namespace, pid, started_at, *rest = (*holder.split(":"), "", "", "", "")
    if host != socket.gethostname() or namespace != _pid_namespace():
        return None
    if not pid.isdigit() or not started_at or any(rest):
        return None
    return int(pid)


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
