"""ports.Events: wake-ups over Redis pub/sub.

Wake-ups may be lost, by design. Receivers also check the store at intervals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence

import redis

from orchestrator.domain.ids import SandboxId, SessionId

PREFIX = "spawn:"
SESSION = "session:"
INBOX = "inbox:"
ROUTES = "routes"
POOL = "pool"
_IDLE_TIMEOUT_S = 1.0


class RedisEvents:
    """Publishing never fails: a wake-up that can't be sent is lost."""

    def __init__(self, connection: redis.Redis) -> None:
        self._redis = connection

    def session_changed(self, session_id: SessionId) -> None:
        self._publish(SESSION + session_id)

    def inbox_changed(self, sandbox_id: SandboxId) -> None:
        self._publish(INBOX + sandbox_id)

    def routes_changed(self) -> None:
        self._publish(ROUTES)

    def pool_changed(self) -> None:
        self._publish(POOL)

    @contextlib.contextmanager
    def subscribe(self, topics: Sequence[str]) -> Generator[Iterator[str]]:
        pubsub = redis.client.PubSub(self._redis.connection_pool, ignore_subscribe_messages=True)
        with contextlib.closing(pubsub):
            yield self._messages(pubsub, topics)

    def _publish(self, topic: str) -> None:
        with contextlib.suppress(redis.RedisError):
            self._redis.publish(PREFIX + topic, "")

    @staticmethod
    def _messages(pubsub: redis.client.PubSub, topics: Sequence[str]) -> Iterator[str]:
        """Yield each topic that changed, and "" when idle or when Redis does not answer.

        After an error, reconnect and subscribe again.
        """
        subscribed = False
        while True:
            try:
                if not subscribed:
                    pubsub.subscribe(*[PREFIX + topic for topic in topics])
                    subscribed = True
                message = pubsub.get_message(timeout=_IDLE_TIMEOUT_S)
            except redis.RedisError:
                subscribed = False
                pubsub.reset()
                yield ""
                continue
            if message is None:
                yield ""
            elif message["type"] == "message":
                yield message["channel"].decode().removeprefix(PREFIX)
