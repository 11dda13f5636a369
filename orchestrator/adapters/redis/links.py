"""ports.LinkBoard: the daemon posts the state of its links in Redis, and spawn-api reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import redis

from orchestrator.adapters.redis.connection import prefix_of
from orchestrator.ports import LinkGauges

_TTL_S = 15  # without a newer post, the daemon is down or can't reach Redis


class RedisLinkBoard:
    """Never raises: if Redis does not answer, posts are lost and reads are empty. Gauges are not
    important enough to stop anything."""

    def __init__(self, connection: redis.Redis, installation: str) -> None:
        self._redis = connection
        self._key = prefix_of(installation) + "links"

    def post(self, gauges: Sequence[LinkGauges]) -> None:
        text = json.dumps([asdict(link) for link in gauges])
        try:
            self._redis.set(self._key, text, ex=_TTL_S)
        except redis.RedisError:
            return

    def read(self) -> Sequence[LinkGauges]:
        try:
            text = self._redis.get(self._key)
        except redis.RedisError:
            return ()
        return [_gauges_of(data) for data in json.loads(text)] if text else ()


def _gauges_of(data: Mapping[str, Any]) -> LinkGauges:
    """The gauges, without fields of a newer release's daemon. An older one lacks fields that have
    a default."""
    names = {field.name for field in fields(LinkGauges)}
    return LinkGauges(**{name: data[name] for name in names & data.keys()})
