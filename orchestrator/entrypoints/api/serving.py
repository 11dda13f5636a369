"""Runs uvicorn servers in one event loop, and stops them in order. Both processes use it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Generator, Sequence
from typing import Any

import uvicorn

from orchestrator.entrypoints.api.hub import Hub

_DRAIN_S = 5


class Server(uvicorn.Server):
    """Handles no signals: two servers in one process would take them from each other."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def make_server(app: object, **options: object) -> Server:
    """A server of an ASGI app. `options` are uvicorn's: host and port, or uds, and limits."""
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]  # uvicorn's alias of an ASGI app is narrower
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=_DRAIN_S,
        lifespan="off",
        **options,  # type: ignore[arg-type]  # checked by uvicorn
    )
    return Server(config)


async def serve(
    servers: Sequence[Server], hub: Hub, background: Sequence[Coroutine[Any, Any, None]]
) -> None:
    """Serve until SIGTERM. `background` runs meanwhile: if a part of it ends, everything stops."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        # 1. Long polls first: servers wait for open requests, and a long poll takes half a minute.
        hub.close()
        # 2. Then the servers. They finish the requests in progress.
        for server in servers:
            server.should_exit = True

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop)
    tasks = [asyncio.create_task(part) for part in (hub.run(), *background)]
    for task in tasks:
        task.add_done_callback(lambda task: None if task.cancelled() else stop())
    try:
        await asyncio.gather(*(server.serve() for server in servers))
    finally:
        # 3. Last, what the servers used.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
