"""Lets each principal do one thing of a kind at a time, in turn: who comes later waits.

Waiting takes no thread, so a principal that asks for much keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary

from orchestrator.entrypoints.api.bounds.holds import Holds


class Turns:
    """Use it from one event loop only."""

    def __init__(self, waiting: Holds) -> None:
        """`waiting` counts those that have their turn or wait for it."""
        self._waiting = waiting
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def turn(self, principal: str, limit: int) -> AsyncIterator[None]:
        """Wait for the principal's turn, and have it. Raises errors.LimitReached if `limit` of them
        have it or wait already."""
        with self._waiting.hold(principal, limit):
            lock = self._locks.get(principal)
            if lock is None:
                lock = self._locks[principal] = asyncio.Lock()
            async with lock:
                yield
