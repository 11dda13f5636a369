"""Sends what may be lost to Redis, in the background: nobody waits for a Redis that hangs.

RedisEvents and RqNudgeQueue use one sender per process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import redis

from orchestrator.slim import structlog

_WAITING_MAX = 1000  # messages; more than sessions change while Redis takes one command
_IDLE_S = 30.0  # then the thread ends; the next message starts another
_CLOSE_S = 1.0

log = structlog.get_logger()


class BackgroundSender:
    """One thread and a bounded queue, in which the latest message per key counts.

    While Redis fails, what waits is dropped: the loops repeat it, and an old wake-up is useless.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: dict[str, Callable[[], object]] = {}
        self._is_running = False  # whether there is a thread that will look at `_waiting`
        self._is_busy = False
        self._is_failing = False

    def send(self, key: str, message: Callable[[], object]) -> bool:
        """Send the message soon, in place of one with this key that still waits.

        Returns False if too many messages wait already: then it is dropped.
        """
        with self._condition:
            if key not in self._waiting and len(self._waiting) >= _WAITING_MAX:
                return False
            self._waiting.pop(key, None)
            self._waiting[key] = message
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="redis-sender", daemon=True).start()
            self._condition.notify_all()
            return True

    def flush(self, timeout_s: float = _CLOSE_S) -> bool:
        """Wait until nothing waits any more. Returns False if that takes longer."""
        with self._condition:
            return self._condition.wait_for(lambda: not (self._waiting or self._is_busy), timeout_s)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._is_busy = False
                self._condition.notify_all()
                if not self._condition.wait_for(lambda: self._waiting, _IDLE_S):
                    self._is_running = False
                    return
                key = next(iter(self._waiting))  # the one that has waited longest
                message = self._waiting.pop(key)
                self._is_busy = True
            self._send(message)

    def _send(self, message: Callable[[], object]) -> None:
        try:
            message()
        except redis.RedisError as error:
            with self._condition:
                dropped = len(self._waiting)
                self._waiting.clear()
            if not self._is_failing:
                log.warning("redis_send_failed", error=str(error), dropped=dropped)
            self._is_failing = True
        except Exception:  # a thread that must survive: it sends everybody's messages
            log.exception("redis_send_crashed")
        else:
            if self._is_failing:
                log.info("redis_send_recovered")
            self._is_failing = False
