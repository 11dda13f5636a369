"""An event loop whose time is the tests' own: it jumps to whatever is waited for."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class LoopWithoutWaits(asyncio.SelectorEventLoop):
    """A loop in which only pauses take time, and those pass at once."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: LoopWithoutWaits) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        self._loop.now += timeout or 0.0
        return super().select(0)
