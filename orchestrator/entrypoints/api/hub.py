"""Lets many requests wait for events without a thread each. The inbox and status polls use it.

Events arrive over Redis pub/sub, which may lose some. A waiting request therefore reads the store
again after `recheck_s` at the latest.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import redis.asyncio
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from orchestrator.adapters.redis.connection import prefix_of
from orchestrator.slim import structlog

_CONNECTED_RECHECK_S = 5.0
_DISCONNECTED_RECHECK_S = 0.5
_RECONNECT_S = 0.25
_SILENCE_S = 1.0  # without a message; then we ask, and wait for so long once more

log = structlog.get_logger()


class Hub:
    """Wakes the requests that wait for a topic. Use it from one event loop only."""

    def __init__(self, connection: redis.asyncio.Redis, installation: str = "") -> None:
        self._redis = connection
        self._prefix = prefix_of(installation)
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._is_connected = False
        self.closed = False

    @property
    def recheck_s(self) -> float:
        """How long to wait before reading the store again, in case an event was lost."""
        return _CONNECTED_RECHECK_S if self._is_connected else _DISCONNECTED_RECHECK_S

    def watch(self, topic: str) -> Watch:
        """Listen to a topic. Do it BEFORE reading the store, so that no event is missed between."""
        return Watch(self._waiting, topic)

    async def run(self) -> None:
        """Listen to Redis and reconnect when needed. Runs until cancelled."""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                if self._is_connected:
                    log.warning("event_listener_disconnected", error=str(error))
            self._is_connected = False
            self._wake_all()
            await asyncio.sleep(_RECONNECT_S)

    def close(self) -> None:
        """End all waits now, because the process is stopping."""
        self.closed = True
        self._wake_all()

    async def _listen(self) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.psubscribe(self._prefix + "*")
            await _next_message(pubsub)  # it confirms that we listen
            self._is_connected = True
            # Events published while we weren't listening are lost: every waiter reads the store.
            self._wake_all()
            while True:
                message = await _next_message(pubsub)
                if message["type"] == "pmessage":
                    topic = message["channel"].decode().removeprefix(self._prefix)
                    for event in self._waiting.get(topic, ()):
                        event.set()

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()


async def _next_message(pubsub: PubSub) -> dict[str, Any]:
    """The next message, an answer to a ping included. Raises RedisError if Redis is silent.

    Without the ping nobody would notice that Redis hangs. And redis-py must not read without a
    timeout: once the kernel has given up a connection, it would try again for ever, without a
    pause, and this process would do nothing else.
    """
    message = await pubsub.get_message(timeout=_SILENCE_S)
    if message is None:
        await pubsub.ping()
        message = await pubsub.get_message(timeout=_SILENCE_S)
    if message is None:
        raise redis.ConnectionError("Redis does not answer")
    return dict(message)


class Watch:
    """One waiter on one topic. Use it as a context manager."""

    def __init__(self, waiting: dict[str, set[asyncio.Event]], topic: str) -> None:
        self._waiting = waiting
        self._topic = topic
        self._event = asyncio.Event()

    def __enter__(self) -> Watch:
        self._waiting[self._topic].add(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting[self._topic].discard(self._event)
        if not self._waiting[self._topic]:
            del self._waiting[self._topic]

    async def wait(self, timeout_s: float) -> bool:
        """Wait for an event. Returns False if none arrived within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
