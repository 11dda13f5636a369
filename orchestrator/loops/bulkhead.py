"""A bulkhead: calls that may block run in threads, a few at once for each host.

So a host that hangs costs its own few threads and nobody else's. The daemon's passes call engines
through it: each pass offers all that is left to do, and never waits.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.slim import structlog

_BACKOFF_MAX_S = 30.0
_DOUBLINGS_MAX = 10

log = structlog.get_logger()


@dataclass(kw_only=True)
class _Failures:
    """The failures in a row of the call for one sandbox."""

    count: int
    not_before: datetime  # the next call


class Bulkhead:
    """Runs one kind of call. Skips a sandbox that is busy, and for a while one whose call failed.

    The pause doubles with each failure in a row: 1, 2, 4 s and so on, at most 30 s.
    """

    def __init__(
        self,
        clock: ports.Clock,
        *,
        per_host: int,
        spawn: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """`spawn` runs a function, by default in a thread of its own."""
        self._clock = clock
        self._per_host = per_host
        self._spawn = spawn or _spawn_thread
        self._lock = threading.Lock()
        self._busy: dict[SandboxId, HostId] = {}
        self._failures: dict[SandboxId, _Failures] = {}

    def offer(self, sandbox: SandboxId, host: HostId, call: Callable[[], None]) -> bool:
        """Begin the call for this sandbox now, or leave it to a later offer. Returns which.

        A call that fails is logged, and the sandbox backs off. So does one whose call has a bug:
        it concerns no other sandbox.
        """
        now = self._clock.now()
        with self._lock:
            failures = self._failures.get(sandbox)
            if sandbox in self._busy or (failures is not None and now < failures.not_before):
                return False
            if Counter(self._busy.values())[host] >= self._per_host:
                return False
            self._busy[sandbox] = host
        self._spawn(lambda: self._run(sandbox, call))
        return True

    def is_busy(self, sandbox: SandboxId) -> bool:
        with self._lock:
            return sandbox in self._busy

    def _run(self, sandbox: SandboxId, call: Callable[[], None]) -> None:
        try:
            call()
        except errors.StaleWrite:
            pass  # it changed meanwhile: the next pass looks again
        except errors.SpawnError as error:
            pause_s = self._back_off(sandbox)
            log.warning(
                "engine_call_failed",
                sandbox=sandbox,
                code=error.code,
                error=str(error),
                retry_in_s=pause_s,
            )
        except Exception:
            self._back_off(sandbox)
            log.exception("engine_call_crashed", sandbox=sandbox)
        else:
            with self._lock:
                self._failures.pop(sandbox, None)
        finally:
            with self._lock:
                del self._busy[sandbox]

    def _back_off(self, sandbox: SandboxId) -> float:
        """Record a failure. Returns the pause before the next call, in seconds."""
        with self._lock:
            last = self._failures.get(sandbox)
            count = 1 if last is None else last.count + 1
            pause_s = min(2.0 ** min(count - 1, _DOUBLINGS_MAX), _BACKOFF_MAX_S)
            not_before = self._clock.now() + timedelta(seconds=pause_s)
            self._failures[sandbox] = _Failures(count=count, not_before=not_before)
        return pause_s


def _spawn_thread(function: Callable[[], None]) -> None:
    """Run it in a daemon thread: a call that hangs must not keep the process from ending."""
    threading.Thread(target=function, name="engine-call", daemon=True).start()
