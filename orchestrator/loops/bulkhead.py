"""A bulkhead: calls that may block run in threads, a few at once for each host.

So a host that hangs costs its own few threads and nobody else's. Whatever the daemon's passes ask
of an engine or a host goes through one: each pass offers all that is left to do, and never waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.ids import HostId
from orchestrator.loops.backoff import Backoff
from orchestrator.slim import structlog

Spawn = Callable[[Callable[[], None]], object]

_YOUNG = timedelta(seconds=2)

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A call that runs."""

    host: HostId
    begun_at: datetime


class Bulkhead:
    """Runs one kind of call. Skips an item that is busy, and for a while one whose call failed."""

    def __init__(
        self,
        clock: ports.Clock,
        *,
        per_host: int,
        at_once: int | None = None,
        spawn: Spawn | None = None,
    ) -> None:
        """`at_once` bounds the calls to all hosts that began within the last two seconds. Calls
        that take longer don't count: however many hosts hang, the others get their calls. `spawn`
        runs a function, by default in a thread of its own.
        """
        self._clock = clock
        self._per_host = per_host
        self._at_once = at_once
        self._spawn = spawn or _spawn_thread
        self._backoff = Backoff(clock)
        self._lock = threading.Condition()
        self._busy: dict[str, _Call] = {}
        self._is_stopping = False

    def offer(
        self, item: str, host: HostId, call: Callable[[], None], *, at_most: int | None = None
    ) -> bool:
        """Begin the call for this item now, or leave it to a later offer. Returns which.

        `item` is the id of what the call is about: a sandbox, or the host itself. A call that fails
        is logged, and its item backs off. So does one whose call has a bug: it concerns no other.
        `at_most`: how many calls the host may have now, if less than at other times. Those that
        take longer than two seconds don't count.
        """
        if self._backoff.is_pausing(item):
            return False
        with self._lock:
            if self._is_stopping or item in self._busy or not self._has_room(host, at_most):
                return False
            self._busy[item] = _Call(host=host, begun_at=self._clock.now())
        self._spawn(lambda: self._run(item, call))
        return True

    def is_busy(self, item: str) -> bool:
        with self._lock:
            return item in self._busy

    def stop(self, timeout_s: float) -> bool:
        """Begin no more calls, and wait for those that run. False if that takes longer."""
        with self._lock:
            self._is_stopping = True
            return self._lock.wait_for(lambda: not self._busy, timeout_s)

    def _has_room(self, host: HostId, at_most: int | None) -> bool:
        calls = [call for call in self._busy.values() if call.host == host]
        if len(calls) >= self._per_host:
            return False
        young_since = self._clock.now() - _YOUNG
        if at_most is not None and sum(call.begun_at > young_since for call in calls) >= at_most:
            return False
        if self._at_once is None:
            return True
        return sum(call.begun_at > young_since for call in self._busy.values()) < self._at_once

    def _run(self, item: str, call: Callable[[], None]) -> None:
        try:
            call()
        except errors.StaleWrite:
            pass  # it changed meanwhile: the next pass looks again
        except errors.SpawnError as error:
            log.warning(
                "engine_call_failed",
                item=item,
                code=error.code,
                error=str(error),
                retry_in_s=self._backoff.fail(item),
            )
        except Exception:
            self._backoff.fail(item)
            log.exception("engine_call_crashed", item=item)
        else:
            self._backoff.succeed(item)
        finally:
            with self._lock:
                del self._busy[item]
                self._lock.notify_all()


def _spawn_thread(function: Callable[[], None]) -> None:
    """Run it in a daemon thread: a call that hangs must not keep the process from ending."""
    threading.Thread(target=function, name="engine-call", daemon=True).start()
