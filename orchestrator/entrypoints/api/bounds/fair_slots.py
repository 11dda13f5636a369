"""Hands out slots to users in turn: who comes when all are taken waits, without a thread.

The gateway's limiter and the walks of apps use it.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from orchestrator.domain.fair_queue import FairQueue

Ticket = asyncio.Future[None]


class FairSlots:
    """Use it from one event loop only."""

    def __init__(self, slots: int, user_max: int) -> None:
        """`user_max`: the most that one user holds, however few others there are."""
        self._free = slots
        self._user_max = user_max
        self._held: Counter[str] = Counter()
        self._queue: FairQueue[Ticket] = FairQueue()

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._queue)

    async def acquire(self, user: str, wait_s: float) -> bool:
        """Take a slot. The caller has to `release` it. False: none was free for this user in time.

        If it is cancelled, it holds none.
        """
        ticket: Ticket = asyncio.get_running_loop().create_future()
        self._queue.add(user, ticket)
        self._hand_out()
        if ticket.done():
            return True
        try:
            # Not wait_for: up to Python 3.11 it loses a cancellation that arrives with the result.
            await asyncio.wait({ticket}, timeout=wait_s)
        except asyncio.CancelledError:
            if not self._withdraw(user, ticket):
                self.release(user)
            raise
        return not self._withdraw(user, ticket)

    def release(self, user: str) -> None:
        """Give a slot back, to whoever is next."""
        self._free += 1
        self._held[user] -= 1
        if not self._held[user]:
            del self._held[user]
        self._hand_out()

    def _withdraw(self, user: str, ticket: Ticket) -> bool:
        """Leave the queue. Returns False if the ticket got its slot already."""
        if ticket.done():
            return False
        self._queue.discard(user, ticket)
        return True

    def _hand_out(self) -> None:
        """Give free slots to those who wait, in turn, at once: who comes later can't overtake."""
        while self._free and (entry := self._queue.pop(self._may_have_another)) is not None:
            user, ticket = entry
            self._free -= 1
            self._held[user] += 1
            ticket.set_result(None)

    def _may_have_another(self, user: str) -> bool:
        return self._held[user] < self._user_max
