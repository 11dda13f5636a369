"""A queue that is fair to users: they take turns, and within one user first come is first served.

Holds who waits and says who is next; it knows nothing of time or of tasks. The gateway's limiter
uses it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

_T = TypeVar("_T")


class FairQueue(Generic[_T]):
    """Tickets by user."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[_T]] = OrderedDict()  # in the order of their turns

    def __len__(self) -> int:
        return sum(len(tickets) for tickets in self._waiting.values())

    def add(self, user: str, ticket: _T) -> None:
        """A user who had nothing waiting comes after all who have."""
        self._waiting.setdefault(user, deque()).append(ticket)

    def pop(self) -> _T:
        """The next ticket; its user goes to the end of the round. Raises IndexError when empty."""
        if not self._waiting:
            raise IndexError("nobody waits")
        user, tickets = next(iter(self._waiting.items()))
        ticket = tickets.popleft()
        del self._waiting[user]
        if tickets:
            self._waiting[user] = tickets
        return ticket

    def discard(self, user: str, ticket: _T) -> None:
        """Somebody stops waiting; no error when they don't wait any more."""
        tickets = self._waiting.get(user)
        if tickets is None or ticket not in tickets:
            return
        tickets.remove(ticket)
        if not tickets:
            del self._waiting[user]
