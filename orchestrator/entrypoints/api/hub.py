"""Waiting for news without a thread each: inbox polls and status polls of one api process.

News come over Redis pub/sub, which may lose them; so nobody waits longer than `recheck_s` before
looking into the store again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import redis.asyncio
from redis.exceptions import RedisError

from orchestrator.adapters.redis.events import PREFIX
from orchestrator.slim import structlog

_CONNECTED_RECHECK_S = 5.0
_ALONE_RECHECK_S = 0.5
_RECONNECT_S = 0.25

log = structlog.get_logger()


class Hub:
    """Wakes whoever waits for a topic. Lives in one event loop."""

    def __init__(self, connection: redis.asyncio.Redis) -> None:
        self._redis = connection
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._connected = False
        self.closed = False

    @property
    def recheck_s(self) -> float:
        """How long news may be late when they got lost."""
        return _CONNECTED_RECHECK_S if self._connected else _ALONE_RECHECK_S

    def watch(self, topic: str) -> Watch:
        """Start to listen BEFORE looking into the store, so that nothing falls in between."""
        return Watch(self._waiting, topic)

    async def run(self) -> None:
        """Listen until cancelled; connects again as often as needed."""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                if self._connected:
                    log.warning("news are late: Redis is away", error=str(error))
            self._connected = False
            self._wake_all()
            await asyncio.sleep(_RECONNECT_S)

    def close(self) -> None:
        """Let every wait end now: the process is stopping."""
        self.closed = True
        self._wake_all()

    async def _listen(self) -> None:
        async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.psubscribe(PREFIX + "*")
            self._connected = True
            # What was published while nobody listened is lost: everybody looks once.
            self._wake_all()
            async for message in pubsub.listen():
                topic = message["channel"].decode().removeprefix(PREFIX)
                for event in self._waiting.get(topic, ()):
                    event.set()

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()


class Watch:
    """One waiter on one topic; a context manager."""

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

    async def news(self, timeout_s: float) -> bool:
        """Whether there were news within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
