"""How the links are, posted in Redis by the daemon and read by spawn-api: ports.LinkBoard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import redis

from orchestrator.adapters.redis.events import PREFIX
from orchestrator.ports import LinkGauges

_KEY = PREFIX + "links"
_GOOD_FOR_S = 15  # older news are none: the daemon is down, or has no Redis


class RedisLinkBoard:
    """Lossy on purpose: it never fails its caller, for gauges are no reason to stop anything."""

    def __init__(self, connection: redis.Redis) -> None:
        self._redis = connection

    def post(self, gauges: Sequence[LinkGauges]) -> None:
        text = json.dumps([asdict(one) for one in gauges])
        try:
            self._redis.set(_KEY, text, ex=_GOOD_FOR_S)
        except redis.RedisError:
            return

    def read(self) -> Sequence[LinkGauges]:
        try:
            text = self._redis.get(_KEY)
        except redis.RedisError:
            return ()
        return [LinkGauges(**one) for one in json.loads(text)] if text else ()
