"""ports.LinkBoard: the daemon posts the state of its links in Redis, and spawn-api reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import redis

from orchestrator.adapters.redis.events import PREFIX
from orchestrator.ports import LinkGauges

_KEY = PREFIX + "links"
_TTL_S = 15  # without a newer post, the daemon is down or can't reach Redis


class RedisLinkBoard:
    """Never raises: if Redis does not answer, posts are lost and reads are empty. Gauges are not
    important enough to stop anything."""

    def __init__(self, connection: redis.Redis) -> None:
        self._redis = connection

    def post(self, gauges: Sequence[LinkGauges]) -> None:
        text = json.dumps([asdict(link) for link in gauges])
        try:
            self._redis.set(_KEY, text, ex=_TTL_S)
        except redis.RedisError:
            return

    def read(self) -> Sequence[LinkGauges]:
        try:
            text = self._redis.get(_KEY)
        except redis.RedisError:
            return ()
        return [LinkGauges(**fields) for fields in json.loads(text)] if text else ()
