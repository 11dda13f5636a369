"""The lease that makes one daemon the leader, and the term that it gives. daemon.py holds it.

The lease is a row of the database. It lasts 6 s, and its holder renews it every 2 s. The holder
leads until 6 s after it *sent* the last renewal that succeeded, by a clock that also runs while the
machine sleeps. So it stops before another daemon may begin, whatever it is that made it late.
Another one begins when the holder has released the lease or has died, or when it has seen no
renewal for 6 s.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from orchestrator.domain import errors
from orchestrator.entrypoints.leadership import holders
from orchestrator.entrypoints.leadership.holders import holder_of
from orchestrator.ports import LeaseRecord
from orchestrator.services.deps import Deps
from orchestrator.slim import structlog

LEASE = "daemon"
LEASE_S = 6.0
_RENEW_S = 2.0
_RETRY_S = 0.5
# The term's end is on a clock that counts the machine's sleep, and waits don't.
_LOOK_S = 1.0

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
        state_dir: Path | None = None,
    ) -> None:
        """`stop` is set when this process must stop; by us, too, when our term is over. `clock`
        returns seconds, and never jumps. `state_dir` tells our control plane from others on this
        machine."""
        self._deps = deps
        self.stop = stop
        self._clock = clock
        self._place = holder_of(os.getpid(), state_dir)
        self._holder = str(self._place)
        self._seen: LeaseRecord | None = None  # another holder's, and when we first saw it so
        self._seen_at = float("-inf")
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
        """Wait until no other daemon holds the lease, and take it. False if `stop` is set first.

        Raises errors.Conflict (standby) if a daemon of another control plane holds and renews it.
        """
        waiting = False
        while not self.stop.is_set():
            reason = "another daemon leads"
            try:
                if self._take():
                    log.info("lease_acquired", holder=self._holder, term=self.number)
                    return True
            except errors.Temporary as error:  # the database refuses, hangs, or has no room
                reason = str(error)
            if not waiting:
                log.info("lease_awaited", reason=reason)
                waiting = True
            self.stop.wait(_RETRY_S)
        return False

    def keep(self) -> bool:
        """Renew the lease, from now until `release`. Wait until `stop` is set or our term is over.
        Returns False if it is over."""
        self._renewer.start()
        try:
            self.check()
            while not self.stop.wait(_LOOK_S):
                self.check()
            self.check()  # that may be why it was set
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
        """Try to begin a term. Raises errors.Conflict (standby)."""
        record = self._deps.store.leases.last(LEASE)
        if record is None:
            return self._renew()
        if not self._is_free(record) or not self._renew(if_unchanged_since=record.until):
            return False
        if record.holder != self._holder:
            holders.parse(record.holder).end_if_stopped()
        return True

    def _is_free(self, record: LeaseRecord) -> bool:
        """Whether its holder leads no more. Machines need not agree on the time: a holder that
        leads renews its lease under our eyes."""
        if record.is_released:
            return True
        holder = holders.parse(record.holder)
        # Of another control plane even a dead daemon is waited for: its supervisor restarts it.
        is_elsewhere = holder.is_elsewhere(self._place)
        if holder.has_died and not is_elsewhere:
            log.info("leader_died", holder=record.holder)
            return True
        if record != self._seen:
            if self._seen is not None and is_elsewhere:
                raise errors.Conflict(f"the control plane on {holder.host} leads", code="standby")
            self._seen, self._seen_at = record, self._clock()
        return self._clock() - self._seen_at > LEASE_S

    def _renew_forever(self) -> None:
        try:
            self._renew_while_we_may()
        finally:
            self._is_over.set()
            self.stop.set()

    def _renew_while_we_may(self) -> None:
        wait_s = _RENEW_S
        while not self._is_released.wait(wait_s):
            sent_at, wait_s = self._clock(), _RENEW_S
            if sent_at >= self._ends_at:
                return  # too late, even if nobody else has begun yet
            try:
                if not self._renew():
                    return
            except errors.StorageUnavailable:
                # The database's disk is full: nobody else can take the lease either.
                self._ends_at = sent_at + LEASE_S
            except errors.Temporary as error:
                log.warning("lease_not_renewed", error=str(error))
                wait_s = _RETRY_S

    def _renew(self, if_unchanged_since: datetime | None = None) -> bool:
        """Take or renew the lease. The term counts from before the database was asked."""
        sent_at, now = self._clock(), self._deps.clock.now()
        until = now + timedelta(seconds=LEASE_S)
        number = self._deps.store.leases.hold(LEASE, self._holder, until, if_unchanged_since or now)
        if number is None or (self.number and number != self.number):
            return False  # another daemon holds it, or has held it meanwhile
        self.number, self._ends_at = number, sent_at + LEASE_S
        return True
