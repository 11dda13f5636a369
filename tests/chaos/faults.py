"""A part that misbehaves: a proxy before a real server, on TCP or a UNIX socket.

It passes everything on until a test makes it refuse, hang, trickle or lie; at the end of that the
part is well again. What was held back while it hung is passed on then, as by a process that goes on
after SIGSTOP.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from tests.chaos.http_lies import read_request

DOCKER_SOCKET = Path("/var/run/docker.sock")
_DEADLINE_S = 20
_CHUNK_BYTES = 64 * 1024
_TRICKLE_S = 0.2  # between two bytes

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
# A port of this machine, an address with a port, or the path of a socket.
Address = int | tuple[str, int] | Path
# Method and path of a request to the answer in place of the part's own; None: leave it to the part.
Liar = Callable[[str, str], bytes | None]


class Part:
    """`with Part(target).running() as part: ... with part.hanging(): ...`"""

    def __init__(self, target: Address, *, listen: int | Path = 0) -> None:
        """Listen at `listen`; 0 is a free port, kept as `port`."""
        self._target = target
        self._listen = listen
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._writers: set[Writer] = set()
        self._tasks: set[asyncio.Task[None]] = set()  # one per connection
        self._moving = asyncio.Event()
        self._in_one_go = asyncio.Event()
        self._liar: Liar | None = None
        self._greeting = b""
        self.late = 0  # bytes that have trickled so far

    @property
    def port(self) -> int:
        assert isinstance(self._listen, int)
        return self._listen

    @property
    def path(self) -> Path:
        assert isinstance(self._listen, Path)
        return self._listen

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._tasks)

    @contextlib.contextmanager
    def running(self) -> Iterator[Part]:
        thread = threading.Thread(target=self._loop.run_forever, name="part", daemon=True)
        thread.start()
        try:
            self._do(self._open())
            yield self
        finally:
            self._do(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(_DEADLINE_S)
            self._loop.close()

    # Faults

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """End all connections and take no new one, like a server that has stopped."""
        self._do(self._close())
        try:
            yield
        finally:
            self._do(self._open())

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Take new connections, and keep those there are, but pass nothing on."""
        self._do(self._set(self._moving.clear))
        try:
            yield
        finally:
            self._do(self._set(self._moving.set))

    @contextlib.contextmanager
    def trickling(self) -> Iterator[None]:
        """Answer a few bytes a second, so that no time-out between two bytes ever ends it."""
        self._do(self._set(self._in_one_go.clear))
        try:
            yield
        finally:
            self._do(self._set(self._in_one_go.set))

    @contextlib.contextmanager
    def lying(self, liar: Liar) -> Iterator[None]:
        """Answer HTTP requests by `liar(method, path)`: a whole response; None: the part's own."""
        self._do(self._lie(liar))
        try:
            yield
        finally:
            self._do(self._lie(None))

    @contextlib.contextmanager
    def babbling(self, greeting: bytes) -> Iterator[None]:
        """Greet every new connection with these bytes, again and again, and read nothing."""
        self._do(self._babble(greeting))
        try:
            yield
        finally:
            self._do(self._babble(b""))

    def cut(self) -> None:
        """End all connections; new ones are taken."""
        self._do(self._abort())

    # In the loop's thread

    def _do(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(_DEADLINE_S)

    async def _set(self, change: Callable[[], None]) -> None:
        change()

    async def _open(self) -> None:
        self._moving.set()
        self._in_one_go.set()
        if isinstance(self._listen, Path):
            self._listen.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._serve, self._listen, backlog=512)
        else:
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self._listen, backlog=512
            )
            self._listen = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            if isinstance(self._listen, Path):
                self._listen.unlink(missing_ok=True)
        await self._abort()

    async def _lie(self, liar: Liar | None) -> None:
        self._liar = liar
        await self._abort()  # no connection of before may tell the truth, none of now a lie later

    async def _babble(self, greeting: bytes) -> None:
        self._greeting = greeting
        await self._abort()

    async def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._connect(reader, writer)
        except asyncio.CancelledError:
            pass  # aborted
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()  # what is written is still sent, unless it was aborted

    async def _connect(self, reader: Reader, writer: Writer) -> None:
        await self._moving.wait()
        while self._greeting:
            await self._send(writer, self._greeting)
            await asyncio.sleep(_TRICKLE_S)
        head = b""
        if self._liar is not None:
            request = await read_request(reader)
            lie = self._liar(request.method, request.path)
            if lie is not None:
                await reader.readexactly(request.length)
                await self._send(writer, lie)
                return
            head = request.closing
        target_reader, target_writer = await self._dial()
        self._writers.add(target_writer)
        try:
            target_writer.write(head)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, target_writer, self._send))
                group.create_task(self._copy(target_reader, writer, self._send_answer))
        except* OSError:
            pass  # one of the two has gone
        finally:
            self._writers.discard(target_writer)
            target_writer.close()

    async def _dial(self) -> tuple[Reader, Writer]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target)
        host, port = ("127.0.0.1", self._target) if isinstance(self._target, int) else self._target
        return await asyncio.open_connection(host, port)

    async def _copy(
        self, reader: Reader, writer: Writer, send: Callable[[Writer, bytes], Awaitable[None]]
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._moving.wait()
            await send(writer, data)
        await self._moving.wait()
        writer.write_eof()

    async def _send(self, writer: Writer, data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    async def _send_answer(self, writer: Writer, data: bytes) -> None:
        while data and not self._in_one_go.is_set():
            await self._send(writer, data[:1])
            data = data[1:]
            self.late += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._in_one_go.wait(), _TRICKLE_S)
        if data:
            await self._send(writer, data)
