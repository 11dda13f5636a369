"""A hub in a process of its own, which a test may find hanging: `listening.py URL`.

It prints `connected` and `disconnected`, whenever the hub's opinion changes.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import redis.asyncio

from orchestrator.adapters.redis.connection import keepalive_of
from orchestrator.entrypoints.api.hub import Hub

# So that the kernel gives up a silent connection within two seconds.
_QUICK = {
    socket.TCP_KEEPIDLE: 1,
    socket.TCP_KEEPINTVL: 1,
    socket.TCP_KEEPCNT: 1,
    socket.TCP_USER_TIMEOUT: 1000,
}


async def main(url: str) -> None:
    options = {**keepalive_of(url), "socket_keepalive_options": _QUICK}
    hub = Hub(redis.asyncio.Redis.from_url(url, **options))
    listening = asyncio.create_task(hub.run())
    cautious_s, last = Hub(redis.asyncio.Redis()).recheck_s, ""
    while not listening.done():
        opinion = "disconnected" if hub.recheck_s == cautious_s else "connected"
        if opinion != last:
            print(opinion, flush=True)
            last = opinion
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
