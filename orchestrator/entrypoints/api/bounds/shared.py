"""One answer for all who ask at about the same time: for what costs much and is the same for all.

However many ask, one of them at a time takes a thread for it. `/ready` and `/metrics` use it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Shared(Generic[_T]):
    """Use it from one event loop only."""

    def __init__(
        self,
        make: Callable[[], Awaitable[_T]],
        kept_s: float,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`make` makes the answer. It is asked again `kept_s` after it has answered, or when it
        has failed."""
        self._make = make
        self._kept_s = kept_s
        self._now_s = now_s
        self._making: asyncio.Task[_T] | None = None
        self._kept_until_s = 0.0

    async def get(self) -> _T:
        """The answer that is being made, or was just made, or a new one. Raises what `make`
        raises."""
        making = self._making
        if making is None or (making.done() and self._now_s() >= self._kept_until_s):
            making = self._making = asyncio.create_task(self._made())
        # A client that goes away doesn't end what the others wait for.
        return making.result() if making.done() else await asyncio.shield(making)

    async def _made(self) -> _T:
        answer = await self._make()
        self._kept_until_s = self._now_s() + self._kept_s
        return answer
