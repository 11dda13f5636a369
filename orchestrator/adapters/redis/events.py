"""ports.Events: wake-ups over Redis pub/sub.

Wake-ups may be lost, by design. Receivers also check the store at intervals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence

import redis

from orchestrator.adapters.redis.connection import prefix_of
from orchestrator.adapters.redis.sender import BackgroundSender
from orchestrator.domain.ids import SandboxId, SessionId

SESSION = "session:"
INBOX = "inbox:"
ROUTES = "routes"
POOL = "pool"
_IDLE_TIMEOUT_S = 1.0


class RedisEvents:
    """Publishing never fails and never waits: a wake-up that can't be sent is lost."""

    def __init__(
        self, connection: redis.Redis, sender: BackgroundSender, installation: str
    ) -> None:
        self._redis = connection
        self._sender = sender
        self._prefix = prefix_of(installation)

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
        channel = self._prefix + topic
        self._sender.send(f"event {topic}", lambda: self._redis.publish(channel, ""))

    def _messages(self, pubsub: redis.client.PubSub, topics: Sequence[str]) -> Iterator[str]:
        """Yield each topic that changed, and "" when idle or when Redis does not answer.

        After an error, reconnect and subscribe again.
        """
        subscribed = False
        while True:
            try:
                if not subscribed:
                    pubsub.subscribe(*[self._prefix + topic for topic in topics])
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
                yield message["channel"].decode().removeprefix(self._prefix)
