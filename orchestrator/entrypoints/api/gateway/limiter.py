"""Limits how many calls run at once. The rest waits in a queue that is fair between users.

`call` holds a slot for each call that it makes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.domain import errors
from orchestrator.entrypoints.api.bounds.fair_slots import FairSlots
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics


class Limiter:
    """Hands out slots. Use it from one event loop only.

    A user holds at most all slots but one, however few others there are: whoever comes next finds
    a slot, and need not wait until the first user's long calls have ended.
    """

    def __init__(self, slots: int, wait_s: float, metrics: GatewayMetrics) -> None:
        """`wait_s`: the longest time that a call waits for a slot."""
        self._slots = FairSlots(slots, max(1, slots - 1))
        self._wait_s = wait_s
        self._metrics = metrics
        metrics.queue_length.set_function(lambda: self._slots.waiting)

    @asynccontextmanager
    async def slot(self, user: str) -> AsyncIterator[None]:
        """Hold a slot. Raises errors.LimitReached (gateway_busy) if none is free in time."""
        started_s = asyncio.get_running_loop().time()
        if not await self._slots.acquire(user, self._wait_s):
            raise errors.LimitReached(
                f"all slots at the provider, or all that one user may hold, were busy for"
                f" {self._wait_s:g} s; try again later",
                code="gateway_busy",
                retry_after_s=self._wait_s / 4,
            )
        self._metrics.queue_wait.observe(asyncio.get_running_loop().time() - started_s)
        self._metrics.slots_in_use.inc()
        try:
            yield
        finally:
            self._metrics.slots_in_use.dec()
            self._slots.release(user)
