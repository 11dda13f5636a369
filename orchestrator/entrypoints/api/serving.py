"""Runs uvicorn servers in one event loop, and stops them in order. All our servers use it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Coroutine, Generator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from orchestrator.entrypoints.api.errors.failures import Failures
from orchestrator.entrypoints.api.errors.malformed import ProblemConnection
from orchestrator.entrypoints.api.hub import Hub

_DRAIN_S = 5
_LEAVE_S = 6.0  # the proxy closes a connection that it hasn't used for 4 s
_TICK_S = 0.05
_LOOK_S = 1.0  # also the age of the Date header, with which no server of ours answers
_CLOSE = (b"connection", b"close")


class Server(uvicorn.Server):
    """Handles no signals: two servers in one process would take them from each other."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Have `serve` finish the requests in progress, and return."""
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        """uvicorn looks ten times a second whether to end. We are told, and leave it a look now and
        then for what else it does in them."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._ending.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Bind a UNIX socket under another name until it is open to others. uvicorn binds it first
        and sets its mode then, and the proxy would be refused in between."""
        uds = self.config.uds
        if uds is None:
            await super().startup(sockets)
            return
        path = Path(uds)
        draft = path.with_name(f".{path.name}")
        draft.unlink(missing_ok=True)
        self.config.uds = str(draft)
        await super().startup(sockets)
        draft.replace(path)
        self.config.uds = uds

    async def leave(self, path: Path) -> None:
        """Let the clients of the socket `path` go elsewhere, so that none is cut off.

        No new client finds the socket. Those that are connected are told to close at their next
        answer, and have closed by themselves if they ask nothing. Ends at `_LEAVE_S` at the latest.
        """
        path.unlink(missing_ok=True)
        self.config.encoded_headers.append(_CLOSE)  # uvicorn takes its headers from here
        self.server_state.default_headers.append(_CLOSE)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + _LEAVE_S
        # At least one tick: connections that wait to be accepted don't count yet.
        await asyncio.sleep(_TICK_S)
        while self.server_state.connections and loop.time() < deadline_s:
            await asyncio.sleep(_TICK_S)


def make_server(app: ASGIApp, **options: object) -> Server:
    """A server of an ASGI app. `options` are uvicorn's: host and port, or uds, and limits."""
    config = uvicorn.Config(
        Failures(app),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=_DRAIN_S,
        lifespan="off",
        **{"http": ProblemConnection, **options},  # type: ignore[arg-type]  # checked by uvicorn
    )
    return Server(config)


async def serve(
    servers: Sequence[Server],
    hub: Hub,
    background: Sequence[Coroutine[Any, Any, None]],
    *,
    drained: Path | None = None,
) -> None:
    """Serve until SIGTERM. `background` runs meanwhile: if a part of it ends, everything stops, and
    its error is raised.

    `drained` is the socket whose clients can go elsewhere: they are given the time to do so.
    """
    loop = asyncio.get_running_loop()
    leaving: list[asyncio.Task[None]] = []

    async def leave() -> None:
        if drained is not None:
            started = [server for server in servers if server.started]
            await asyncio.gather(*(server.leave(drained) for server in started))
        # 3. Then the servers. They finish the requests in progress.
        for server in servers:
            server.end()

    def stop() -> None:
        # 1. Long polls first: servers wait for open requests, and a long poll takes half a minute.
        hub.close()
        # 2. Clients that can go elsewhere do so.
        if not leaving:
            leaving.append(asyncio.create_task(leave()))

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop)
    tasks = [asyncio.create_task(part) for part in (hub.run(), *background)]
    for task in tasks:
        task.add_done_callback(lambda task: None if task.cancelled() else stop())
    try:
        await asyncio.gather(*(server.serve() for server in servers))
    finally:
        # 4. Last, what the servers used.
        for task in (*tasks, *leaving):
            task.cancel()
        outcomes = await asyncio.gather(*tasks, *leaving, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
