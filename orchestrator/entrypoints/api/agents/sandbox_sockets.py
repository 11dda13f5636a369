"""A socket for each sandbox: whoever connects there is that sandbox. server.py runs it.

The sockets follow the store. On this machine their folders are mounted into the sandboxes; to those
of other hosts the links forward. A sandbox with CONNECTIONS_MAX connections waits, in the queue of
its own socket, until one of them ends: that costs us nothing, and nobody else notices. So does one
that connects too often.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from orchestrator.adapters import unix_sockets
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool import agent_sockets
from orchestrator.entrypoints.api.context import Context
from orchestrator.ports import topics
from orchestrator.slim import structlog

_ALL_EVERY_S = 5.0  # between looks at all sandboxes, however many events there are
_GATHER_S = 0.02  # events of one burst are one look
_BACKLOG = 64
_BATCH = 50  # sockets that are bound at a time, in a thread
_EXHAUSTED_PAUSE_S = 1.0  # after an accept for which we lacked a descriptor

log = structlog.get_logger()

# Makes what serves one connection of a sandbox, and calls the function when it has ended.
Serve = Callable[[SandboxId, Callable[[], None]], asyncio.Protocol]


class SandboxSockets:
    """All of them. Use it from one event loop only."""

    def __init__(self, context: Context, serve: Serve) -> None:
        self._context = context
        self._serve = serve
        self._parent = context.settings.places.agent_folder / agent_sockets.SANDBOXES
        self._sockets: dict[SandboxId, SandboxSocket] = {}
        self._compared_at = 0.0

    async def run(self) -> None:
        """Follow the store until the hub closes, then accept no more connections."""
        hub = self._context.hub
        self._parent.mkdir(mode=0o711, exist_ok=True)
        self._parent.chmod(0o711)  # a sandbox of an earlier layout can't list the others
        try:
            with hub.watch(topics.ROUTES) as watch:
                has_event = False
                while not hub.closed:
                    is_due = time.monotonic() - self._compared_at >= _ALL_EVERY_S
                    await self._follow(is_whole=is_due or not has_event)
                    has_event = await watch.wait(hub.recheck_s)
                    if has_event and not hub.closed:
                        await asyncio.sleep(_GATHER_S)
        finally:
            for sandbox_socket in self._sockets.values():
                sandbox_socket.close()

    async def _follow(self, *, is_whole: bool) -> None:
        """One look at the store: at all sandboxes, or at those that are about to start."""
        deps = self._context.deps
        try:
            if is_whole:
                # Folders first: a row is committed before its folder is made.
                present = await self._context.in_thread(self._list_folders)
                living: Collection[SandboxId] = await self._context.in_thread(
                    deps.store.pool.living
                )
                await self._remove(present, living)
                self._compared_at = time.monotonic()
            else:
                starting = await self._context.in_thread(deps.store.sandboxes.unstarted)
                living = [sandbox.id for sandbox in starting]
        except errors.Temporary as error:
            log.warning("sandbox_sockets_not_read", code=error.code, error=str(error))
            return
        missing = [sandbox_id for sandbox_id in living if sandbox_id not in self._sockets]
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            for sandbox_id, listening in await self._context.in_thread(self._bind, batch):
                self._open(sandbox_id, listening)

    def _list_folders(self) -> Collection[SandboxId]:
        with errors.storage("list the folders of agent sockets"):
            names = [folder.name for folder in self._parent.iterdir()]
        return [SandboxId(name) for name in names if ids.is_id(name, "sbx")]

    async def _remove(self, present: Collection[SandboxId], living: Collection[SandboxId]) -> None:
        """Remove the sockets and folders of sandboxes that are gone."""
        for sandbox_id in {*present, *self._sockets} - set(living):
            sandbox_socket = self._sockets.pop(sandbox_id, None)
            if sandbox_socket is not None:
                sandbox_socket.close()
            await self._context.in_thread(
                shutil.rmtree, self._parent / sandbox_id, ignore_errors=True
            )

    def _bind(
        self, sandbox_ids: Collection[SandboxId]
    ) -> Sequence[tuple[SandboxId, socket.socket]]:
        """Bind sockets. What fails is left to the next look."""
        bound = []
        for sandbox_id in sandbox_ids:
            try:
                with errors.storage("make an agent socket"):
                    bound.append((sandbox_id, bind(self._parent / sandbox_id)))
            except errors.StorageUnavailable as error:
                log.error("sandbox_socket_not_made", sandbox=sandbox_id, error=str(error))
        return bound

    def _open(self, sandbox_id: SandboxId, listening: socket.socket) -> None:
        metrics = self._context.metrics
        self._sockets[sandbox_id] = SandboxSocket(
            listening,
            lambda ended: self._serve(sandbox_id, ended),
            lambda reason: metrics.agent_refusals.labels(reason).inc(),
        )


class SandboxSocket:
    """The socket of one sandbox. It accepts so many connections at a time, and a second."""

    def __init__(
        self,
        listening: socket.socket,
        serve: Callable[[Callable[[], None]], asyncio.Protocol],
        on_pause: Callable[[str], None],
    ) -> None:
        self._listening = listening
        self._serve = serve
        self._on_pause = on_pause  # called with the reason each time that it stops accepting
        self._loop = asyncio.get_running_loop()
        self._open = 0  # connections
        self._rate = agent_sockets.ConnectionRate()
        self._is_accepting = False
        self._tasks: set[asyncio.Task[object]] = set()
        self._resume()

    def close(self) -> None:
        """Accept no more connections. Those that are open go on."""
        self._stop_accepting()
        self._listening.close()

    def _resume(self) -> None:
        is_closed = self._listening.fileno() == -1
        if not self._is_accepting and not is_closed and self._open < agent_sockets.CONNECTIONS_MAX:
            self._loop.add_reader(self._listening, self._accept)
            self._is_accepting = True

    def _pause(self, reason: str) -> None:
        self._stop_accepting()
        self._on_pause(reason)

    def _stop_accepting(self) -> None:
        if self._is_accepting:
            self._loop.remove_reader(self._listening)
            self._is_accepting = False

    def _accept(self) -> None:
        """Accept one that waits. The loop calls again while others do."""
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            log.error("connection_not_accepted", error=str(error))
            self._pause("descriptors")
            self._loop.call_later(_EXHAUSTED_PAUSE_S, self._resume)
            return
        self._open += 1
        self._begin(connection)
        pause_s = self._rate.take(self._loop.time())
        if pause_s:
            self._pause("connection_rate")
            self._loop.call_later(pause_s, self._resume)
        elif self._open >= agent_sockets.CONNECTIONS_MAX:
            self._pause("connections")

    def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        task: asyncio.Task[object] = self._loop.create_task(self._connect(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket) -> None:
        is_counted = True

        def end() -> None:
            nonlocal is_counted
            if is_counted:
                is_counted = False
                self._end()

        protocol = self._serve(end)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError as error:
            log.warning("connection_not_begun", error=str(error))
            connection.close()
            end()

    def _end(self) -> None:
        self._open -= 1
        self._resume()


def bind(folder: Path) -> socket.socket:
    """A socket that listens in this folder, which is made if it is missing.

    Everybody who reaches the folder may connect. The socket takes the place of an earlier one in
    one step.
    """
    folder.mkdir(mode=0o755, exist_ok=True)
    folder.chmod(0o755)
    # The sandbox has another user.
    return unix_sockets.listen(folder, agent_sockets.SOCKET, backlog=_BACKLOG, mode=0o666)
