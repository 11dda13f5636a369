"""Limits how many calls run at once. The rest waits in a queue that is fair between users.

`call` holds a slot for each call that it makes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.domain import errors
from orchestrator.domain.llm.fair_queue import FairQueue
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics

Ticket = asyncio.Future[None]


class Limiter:
    """Hands out slots. Use it from one event loop only.

    A user holds at most all slots but one, however few others there are: whoever comes next finds
    a slot, and need not wait until the first user's long calls have ended.
    """

    def __init__(self, slots: int, wait_s: float, metrics: GatewayMetrics) -> None:
        """`wait_s`: the longest time that a call waits for a slot."""
        self._free = slots
        self._user_max = max(1, slots - 1)
        self._held: Counter[str] = Counter()
        self._wait_s = wait_s
        self._metrics = metrics
        self._queue: FairQueue[Ticket] = FairQueue()

    @asynccontextmanager
    async def slot(self, user: str) -> AsyncIterator[None]:
        """Hold a slot. Raises errors.LimitReached (gateway_busy) if none is free in time."""
        started_s = asyncio.get_running_loop().time()
        await self._acquire(user)
        self._metrics.queue_wait.observe(asyncio.get_running_loop().time() - started_s)
        self._metrics.slots_in_use.inc()
        try:
            yield
        finally:
            self._metrics.slots_in_use.dec()
            self._release(user)

    async def _acquire(self, user: str) -> None:
        ticket: Ticket = asyncio.get_running_loop().create_future()
        self._queue.add(user, ticket)
        self._hand_out()
        if ticket.done():
            return
        try:
            # Not wait_for: up to Python 3.11 it loses a cancellation that arrives with the result.
            await asyncio.wait({ticket}, timeout=self._wait_s)
        except asyncio.CancelledError:
            if not self._withdraw(user, ticket):
                self._release(user)
            raise
        if self._withdraw(user, ticket):
            raise errors.LimitReached(
                f"all slots at the provider, or all that one user may hold, were busy for"
                f" {self._wait_s:g} s; try again later",
                code="gateway_busy",
                retry_after_s=self._wait_s / 4,
            )

    def _withdraw(self, user: str, ticket: Ticket) -> bool:
        """Leave the queue. Returns False if the ticket got its slot already."""
        if ticket.done():
            return False
        self._queue.discard(user, ticket)
        self._metrics.queue_length.set(len(self._queue))
        return True

    def _release(self, user: str) -> None:
        self._free += 1
        self._held[user] -= 1
        if not self._held[user]:
            del self._held[user]
        self._hand_out()

    def _hand_out(self) -> None:
        """Give free slots to those who wait, in turn, at once: a new call can't overtake them."""
        while self._free and (entry := self._queue.pop(self._may_have_another)) is not None:
            user, ticket = entry
            self._free -= 1
            self._held[user] += 1
            ticket.set_result(None)
        self._metrics.queue_length.set(len(self._queue))

    def _may_have_another(self, user: str) -> bool:
        return self._held[user] < self._user_max
