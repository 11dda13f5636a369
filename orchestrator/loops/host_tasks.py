"""Work on hosts as such: at most one of a kind at a time on each, and no pass waits for a host."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.pool.host import Host
from orchestrator.loops.backoff import Backoff
from orchestrator.loops.bulkhead import Bulkhead, Spawn
from orchestrator.slim import structlog

_AT_ONCE = 64  # hosts; more would only wait for the database

Work = Callable[[Host], str]  # returns a summary for the log, "" if it did nothing

log = structlog.get_logger()


def crash_pauses(clock: ports.Clock) -> Backoff:
    """The hosts that are left alone for a while, because our work on them crashed.

    All passes of a daemon share them. So a host on which one kind of work crashes is not admitted
    again meanwhile, and keeps its reason.
    """
    return Backoff(clock, first_s=5.0, longest_s=300.0, forget_after_s=300.0)


class HostTasks:
    """Runs one kind of work on many hosts, in threads. Skips a host that is still busy.

    A host is responsible for what it answers: whatever its work raises, no other host and no pass
    is affected.
    """

    def __init__(
        self,
        clock: ports.Clock,
        *,
        pauses: Backoff | None = None,
        suspect: Callable[[Host, str], None] = lambda _host, _reason: None,
        spawn: Spawn | None = None,
    ) -> None:
        """`suspect` takes a host whose work crashed out of placement, with the reason."""
        self._calls = Bulkhead(clock, per_host=1, at_once=_AT_ONCE, spawn=spawn)
        self._pauses = pauses or crash_pauses(clock)
        self._suspect = suspect
        self._lock = threading.Lock()
        self._summaries: list[tuple[str, str]] = []

    def run(self, hosts: Sequence[Host], work: Work) -> str:
        """Begin `work` on the hosts that aren't busy. Returns what `take_summary` returns."""
        for host in hosts:
            self.offer(host, work)
        return self.take_summary()

    def offer(self, host: Host, work: Work) -> bool:
        """Begin `work` on this host now, or leave it to a later offer. Returns which.

        A Temporary error of the host is logged and dropped: the links pass finds out whether that
        host answers at all. Any other error makes the host SUSPECT and pauses all work on it.
        """
        if self._pauses.is_pausing(host.id):
            return False
        return self._calls.offer(host.id, host.id, lambda: self._work(host, work))

    def take_summary(self) -> str:
        """What the work that has ended since the last call did, by the hosts' names."""
        with self._lock:
            summaries, self._summaries = self._summaries, []
        return "; ".join(f"{name}: {summary}" for name, summary in sorted(summaries))

    def _work(self, host: Host, work: Work) -> None:
        try:
            summary = work(host)
        except (errors.Temporary, errors.NotFound) as error:
            log.warning("host_task_failed", host=host.name, code=error.code, error=str(error))
        except Exception as error:  # a loop that must survive: other hosts depend on it
            pause_s = self._pauses.fail(host.id)
            log.exception("host_task_crashed", host=host.name, retry_in_s=pause_s)
            self._set_aside(host, f"our work on it failed: {type(error).__name__}: {error!s:.150}")
        else:
            if summary:
                with self._lock:
                    self._summaries.append((host.name, summary))

    def _set_aside(self, host: Host, reason: str) -> None:
        try:
            self._suspect(host, reason)
        except (errors.Temporary, errors.NotFound) as error:
            # The store is away, or the host has left. After the pause its work is tried again.
            log.warning("host_suspect_failed", host=host.name, error=str(error))
