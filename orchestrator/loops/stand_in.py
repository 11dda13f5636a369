"""Looks at sessions in processes that aren't workers.

The daemon takes those of which workers don't hear: Redis may be away, or hang; or the workers may
all be busy, or have just been killed. See near_looks.py for the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId
from orchestrator.slim import structlog

_HANDS = 4
_WAITING_MAX = 1000  # sessions; the nudge loop names the others again

log = structlog.get_logger()


class StandIn:
    """A small pool of threads. Each session has at most one look that runs and one that waits."""

    def __init__(self, look: Callable[[SessionId], None], *, hands: int = _HANDS) -> None:
        """`hands`: how many looks run at once."""
        self._look = look
        self._hands = hands
        self._executor = ThreadPoolExecutor(hands, thread_name_prefix="stand-in")
        self._lock = threading.Lock()
        self._is_stopped = False
        self._waiting: set[SessionId] = set()
        self._running: set[SessionId] = set()

    def take(self, session_id: SessionId) -> None:
        """Look at this session soon, and again if a look at it has begun already."""
        with self._lock:
            if session_id not in self._waiting and len(self._waiting) < _WAITING_MAX:
                self._take(session_id)

    def offer(self, session_id: SessionId) -> bool:
        """Take it only if a hand is free for it, or has this session already. Returns which."""
        with self._lock:
            is_own = session_id in self._running
            if self._is_stopped or not (is_own or len(self._running) < self._hands):
                return False
            self._take(session_id)
            return True

    def stop(self) -> Collection[SessionId]:
        """Begin no more looks, and wait for those that run. Returns the sessions that waited."""
        with self._lock:
            self._is_stopped = True
            waiting, self._waiting = self._waiting, set()
        self._executor.shutdown(cancel_futures=True)
        return waiting

    def _take(self, session_id: SessionId) -> None:
        if self._is_stopped:
            return
        self._waiting.add(session_id)
        if session_id not in self._running:
            self._running.add(session_id)
            self._executor.submit(self._run, session_id)

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
