"""Work beside the event loop, in a thread that is there from the start. Used where files are many.

One thread, because an app may have filled the sandbox with processes: no other can be made then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_BESIDE = ThreadPoolExecutor(max_workers=1, thread_name_prefix="beside")


def start_thread() -> None:
    """Make the thread now, while there is room for it."""
    _BESIDE.submit(int)


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` beside the loop. When cancelled, wait for it first: threads can't be stopped, and
    who comes next uses the same folder.
    """
    running = asyncio.wrap_future(_BESIDE.submit(work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
