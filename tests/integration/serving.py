"""Runs real servers of ASGI apps in a thread of the test."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

from orchestrator.entrypoints.api.serving import Server


@contextlib.contextmanager
def serving(make: Callable[[], Server]) -> Iterator[Server]:
    """Serve until the block ends. `make` runs inside the event loop."""
    listening = threading.Event()
    servers: list[tuple[asyncio.AbstractEventLoop, Server]] = []

    async def serve() -> None:
        server = make()
        servers.append((asyncio.get_running_loop(), server))
        task = asyncio.create_task(server.serve())
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        listening.set()
        await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        assert listening.wait(10), "the server did not start within 10 s"
        yield servers[0][1]
    finally:
        with contextlib.suppress(RuntimeError):  # it has ended by itself, and its loop with it
            loop, server = servers[0]
            loop.call_soon_threadsafe(server.end)
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop within 20 s"
