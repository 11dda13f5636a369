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
    servers: list[Server] = []

    async def serve() -> None:
        server = make()
        servers.append(server)
        task = asyncio.create_task(server.serve())
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        listening.set()
        await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        assert listening.wait(10), "the server did not start within 10 s"
        yield servers[0]
    finally:
        servers[0].should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop within 20 s"
