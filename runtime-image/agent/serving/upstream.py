"""Connects to an app's process. Used by the front, and by whoever tries an app."""

from __future__ import annotations

import asyncio


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to whoever listens on this port of loopback. Raises OSError if nobody does.

    An app that listens on `localhost` or `::1` may be reached by IPv6 alone. With `0.0.0.0` or `::`
    it is reached by IPv4 as well.
    """
    try:
        return await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return await asyncio.open_connection("::1", port)
