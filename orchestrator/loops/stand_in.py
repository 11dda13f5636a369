"""Looks at sessions in the daemon, for workers that don't hear of them.

Redis may be away, or hang; or the workers may all be busy, or have just been killed. Then the
daemon takes the looks itself, a few at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId
from orchestrator.slim import structlog

_THREADS = 4
_WAITING_MAX = 1000  # sessions; the nudge loop names the others again

log = structlog.get_logger()


class StandIn:
    """A small pool of threads. Each session has at most one look that runs and one that waits."""

    def __init__(self, look: Callable[[SessionId], None]) -> None:
        self._look = look
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="stand-in")
        self._lock = threading.Lock()
        self._waiting: set[SessionId] = set()
        self._running: set[SessionId] = set()

    def take(self, session_id: SessionId) -> None:
        """Look at this session soon, and again if a look at it has begun already."""
        with self._lock:
            if session_id in self._waiting or len(self._waiting) >= _WAITING_MAX:
                return
            self._waiting.add(session_id)
            if session_id not in self._running:
                self._running.add(session_id)
                self._executor.submit(self._run, session_id)

    def stop(self) -> None:
        """Begin no more looks, and wait for those that run."""
        with self._lock:
            self._waiting.clear()
        self._executor.shutdown(cancel_futures=True)

    def _run(self, session_id: SessionId) -> None:
        while True:
            with self._lock:
                if session_id not in self._waiting:
                    self._running.discard(session_id)
                    return
                self._waiting.discard(session_id)
            try:
                self._look(session_id)
            except errors.SpawnError as error:
                log.warning("look_failed", session=session_id, code=error.code, error=str(error))
            except Exception:  # a bug in one session's look concerns no other session
                log.exception("look_crashed", session=session_id)
