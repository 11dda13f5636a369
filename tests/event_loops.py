"""Finds calls of the store on an event loop, where they would hold up everybody.

Only lookups by key on the loop's own connection are allowed there: they never use the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

from sqlalchemy import event
from sqlalchemy.pool import Pool

_OURS = "/orchestrator/"


@contextlib.contextmanager
def store_calls_on_loops() -> Iterator[list[str]]:
    """The places of our code from which a connection was taken on an event loop's thread."""
    places: list[str] = []

    def on_checkout(*_: Any) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        frames = [frame for frame in traceback.extract_stack() if _OURS in frame.filename]
        places.append(" < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames)))

    event.listen(Pool, "checkout", on_checkout)
    try:
        yield places
    finally:
        event.remove(Pool, "checkout", on_checkout)
