"""Sends messages to Redis in the background: nobody waits for a Redis that hangs.

RqNudgeQueue uses one sender per process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import redis

from orchestrator.slim import structlog

_WAITING_MAX = 1000  # messages; more than sessions change while Redis takes one command
_IDLE_S = 30.0  # then the thread ends; the next message starts another
_CLOSE_S = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class _Message:
    """`send` sends it to Redis. `instead` is for when that fails; None: it has been called."""

    send: Callable[[], object]
    instead: Callable[[], object] | None


class BackgroundSender:
    """One thread and a bounded queue, in which the latest message per key counts.

    While Redis fails, every message goes the other way at once, and Redis is only asked so that we
    know when it is back.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: dict[str, _Message] = {}
        self._is_running = False  # whether there is a thread that will look at `_waiting`
        self._is_busy = False
        self._is_failing = False

    def send(self, key: str, message: Callable[[], object], instead: Callable[[], object]) -> None:
        """Send the message soon, in place of one with this key that still waits.

        `instead` is called if Redis does not take it, or if too many messages wait already.
        """
        with self._condition:
            has_room = key in self._waiting or len(self._waiting) < _WAITING_MAX
            is_hopeless = self._is_failing or not has_room
            if has_room:
                self._waiting.pop(key, None)
                self._waiting[key] = _Message(
                    send=message, instead=None if is_hopeless else instead
                )
                if not self._is_running:
                    self._is_running = True
                    threading.Thread(target=self._run, name="redis-sender", daemon=True).start()
                self._condition.notify_all()
        if is_hopeless:
            instead()

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

    def _send(self, message: _Message) -> None:
        try:
            message.send()
        except redis.RedisError as error:
            self._give_up(message, str(error))
        except Exception as error:  # a thread that must survive: it sends everybody's messages
            log.exception("redis_send_crashed")
            self._give_up(message, repr(error))
        else:
            if self._is_failing:
                log.info("redis_send_recovered")
            self._is_failing = False

    def _give_up(self, message: _Message, reason: str) -> None:
        """Let this message, and all that wait behind it, go the other way."""
        with self._condition:
            messages = [message, *self._waiting.values()]
            self._waiting.clear()
            if not self._is_failing:
                log.warning("redis_send_failed", error=reason, diverted=len(messages))
            self._is_failing = True
        for diverted in messages:
            if diverted.instead is not None:
                diverted.instead()
