"""Waits for the end of a stream that may be over: `providers` and `first_event` use it.

Some servers keep the connection open after the last event, break it off, or leave that event out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from orchestrator.domain import errors

LAST_CHUNK_S = 5.0  # for the usage, which may come after the reason to stop


async def until_over(
    chunks: AsyncIterator[bytes], may_be_over: Callable[[], bool], last_chunk_s: float
) -> AsyncGenerator[bytes]:
    """The chunks. Once it `may_be_over`, a pause of `last_chunk_s` and a broken connection end
    them; before, they raise errors.Temporary as `chunks` do."""
    while True:
        try:
            async with asyncio.timeout(last_chunk_s if may_be_over() else None):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except (TimeoutError, errors.Temporary):
            if not may_be_over():
                raise
            return
        yield chunk
