"""Tells a client that its answer is still awaited: `call` pings until a provider begins.

A model on a small machine reads a long prompt for minutes. The client must not take that for a
dead connection, and ask again: the machine would start the same work once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.entrypoints.api.gateway import wire
from orchestrator.entrypoints.api.gateway.exchange import Exchange

# Longer than the gateway tries by default (SPAWN_PROVIDER_RETRY_S): an error that comes before the
# first ping still has a status of its own. Far shorter than the silence that agents bear.
INTERVAL_S = 25.0


@contextmanager
def until_answered(exchange: Exchange, interval_s: float | None) -> Iterator[None]:
    """Ping the clients of a stream at each interval while the block runs. None: it is no stream."""
    if interval_s is None:
        yield
        return
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []

    def ping() -> None:
        exchange.ping(wire.STREAM_HEAD, wire.PING)
        timers[:] = [loop.call_later(interval_s, ping)]

    timers.append(loop.call_later(interval_s, ping))
    try:
        yield
    finally:
        timers[0].cancel()
