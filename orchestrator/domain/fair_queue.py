"""A queue that is fair to users: users take turns, and each user's tickets come in order.

The queue holds the tickets and says which is next. It knows nothing about time or tasks. The
gateway's limiter uses it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class FairQueue(Generic[_T]):
    """Waiting tickets, by user."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[_T]] = (
            OrderedDict()
        )  # users in the order of their turns

    def __len__(self) -> int:
        return sum(len(tickets) for tickets in self._waiting.values())

    def add(self, user: str, ticket: _T) -> None:
        """Add a ticket. A user without any other ticket comes after all users who have some."""
        self._waiting.setdefault(user, deque()).append(ticket)

    def pop(self, may_go: Callable[[str], bool] = lambda _: True) -> tuple[str, _T] | None:
        """Take the next ticket of a user who `may_go`, and return it with its user.

        The user is then the last in turn. Users who may not go keep their turn. None: nobody waits
        who may go.
        """
        user = next((user for user in self._waiting if may_go(user)), None)
        if user is None:
            return None
        tickets = self._waiting.pop(user)
        ticket = tickets.popleft()
        if tickets:
            self._waiting[user] = tickets
        return user, ticket

    def discard(self, user: str, ticket: _T) -> None:
        """Remove a ticket. It is no error if it has been taken already."""
        tickets = self._waiting.get(user)
        if tickets is None or ticket not in tickets:
            return
        tickets.remove(ticket)
        if not tickets:
            del self._waiting[user]
