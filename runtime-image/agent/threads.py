"""Runs work that blocks beside the event loop, in one thread. Used where an app has many files.

The thread is started early, and there is only one: later an app may have filled the sandbox with
processes, and then no other thread can be started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_POOL = ThreadPoolExecutor(max_workers=1, thread_name_prefix="beside")


def start_thread() -> None:
    """Start the thread now, while there is room for it."""
    _POOL.submit(int)


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` in the thread and return its result.

    If the caller is cancelled, wait for `work` to end first: a thread can't be stopped, and the
    next caller uses the same folder.
    """
    future = asyncio.wrap_future(_POOL.submit(work, *args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        raise
