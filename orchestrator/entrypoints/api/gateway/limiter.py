"""So many calls at the providers at once, and a queue that is fair to users for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.domain import errors
from orchestrator.domain.llm.fair_queue import FairQueue
from orchestrator.entrypoints.api.gateway.board import Board

Ticket = asyncio.Future[None]


class Limiter:
    """Hands out slots, in one event loop."""

    def __init__(self, slots: int, wait_s: float, board: Board) -> None:
        """`wait_s`: the longest that anybody waits."""
        self._free = slots
        self._wait_s = wait_s
        self._board = board
        self._queue: FairQueue[Ticket] = FairQueue()

    @asynccontextmanager
    async def slot(self, user: str) -> AsyncIterator[None]:
        """Hold one. Raises errors.LimitReached (gateway_busy) when none came free in time."""
        began = asyncio.get_running_loop().time()
        await self._take(user)
        self._board.waited.observe(asyncio.get_running_loop().time() - began)
        self._board.under_way.inc()
        try:
            yield
        finally:
            self._board.under_way.dec()
            self._give_back()

    async def _take(self, user: str) -> None:
        if self._free and not len(self._queue):
            self._free -= 1
            return
        ticket: Ticket = asyncio.get_running_loop().create_future()
        self._queue.add(user, ticket)
        self._board.waiting.set(len(self._queue))
        try:
            # Not wait_for: up to Python 3.11 it swallows a cancellation that comes with the result.
            await asyncio.wait({ticket}, timeout=self._wait_s)
        except asyncio.CancelledError:
            if not self._withdraw(user, ticket):
                self._give_back()
            raise
        if self._withdraw(user, ticket):
            raise errors.LimitReached(
                f"all slots at the provider were busy for {self._wait_s:g} s; try again later",
                code="gateway_busy",
                retry_after_s=self._wait_s / 4,
            )

    def _withdraw(self, user: str, ticket: Ticket) -> bool:
        """Stop waiting; False when the slot has been handed over already."""
        if ticket.done():
            return False
        self._queue.discard(user, ticket)
        self._board.waiting.set(len(self._queue))
        return True

    def _give_back(self) -> None:
        if not len(self._queue):
            self._free += 1
            return
        self._queue.pop().set_result(None)  # handed over: nobody can slip in between
        self._board.waiting.set(len(self._queue))
