"""Passes the body of one request on to the app. Used by `splice.py`.

Until the app answers, the body goes through at the pace of the app. Then the rest of it is taken
from the client at once and waits here, and only then the answer goes on: once a proxy has the head
of an answer, nginx no longer hears that we have room for more of the body, and both would wait for
ever (ngx_http_upstream_send_request_handler does nothing after `header_sent`).
"""

from __future__ import annotations

import asyncio
from collections import deque

import h11

from agent.serving.upload import Upload
from agent.serving.upstream import AppConnection

DIRECT_BYTES = 64 * 1024
"""Of one body that wait before the app answers."""
WAITING_MAX_BYTES = 64 * 1024 * 1024
"""Of all bodies, while their apps answer. More than an upload at its limit; counts as the sandbox's
memory, as a file in its tmpfs would."""
PAUSE_S = 0.5
"""Nothing has come for so long: the client waits for the answer, as in a conversation of both."""


class NoRoomForBody(Exception):
    """Too much waits already."""


class ClientGone(Exception):
    """It hung up before the end of its request."""


class Waiting:
    """Counts the bytes of all bodies that wait."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size = 0


class Body:
    """One request's body, between its client and the app."""

    def __init__(
        self,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        app: AppConnection,
        upload: Upload,
        waiting: Waiting,
        *,
        is_chunked: bool,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._app = app
        self._upload = upload
        self._waiting = waiting
        self._is_chunked = is_chunked
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._is_answered = False
        self._is_refused = False  # the app reads no more
        self._changed = asyncio.Condition()

    async def send(self, head: bytes) -> None:
        """Send the head and the whole body to the app.

        Raises OSError if the app reads no more, UploadRefused, NoRoomForBody or ClientGone; the
        app has got only a part of the body then.
        """
        if self._upload.is_read:
            await self._app.write(head)
            return
        tasks = [asyncio.create_task(work) for work in (self._take(), self._feed(head))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._waiting.size -= self._size

    async def take_rest(self) -> None:
        """Wait until all has come, unless the client pauses or the app reads no more.

        Call it when the app answers. From then on nothing waits for the app to read.
        """
        async with self._changed:
            self._is_answered = True
            self._changed.notify_all()
            while not (self._upload.is_read or self._is_refused):
                if self._connection.they_are_waiting_for_100_continue:
                    return
                try:
                    async with asyncio.timeout(PAUSE_S):
                        await self._changed.wait()
                except TimeoutError:
                    return

    async def _take(self) -> None:
        while True:
            event = self._connection.next_event()
            if event is h11.NEED_DATA:
                self._connection.receive_data(await self._upload.read(self._reader))
            elif isinstance(event, h11.Data):
                self._upload.count(len(event.data))
                await self._add(self._framed(bytes(event.data)))
            elif isinstance(event, h11.EndOfMessage):
                await self._add(b"0\r\n\r\n" if self._is_chunked else b"", is_last=True)
                return
            else:
                raise ClientGone

    async def _add(self, piece: bytes, *, is_last: bool = False) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_answered or self._size < DIRECT_BYTES)
            if self._is_answered and self._waiting.size + len(piece) > self._waiting.max_bytes:
                raise NoRoomForBody
            self._pieces.append(piece)
            self._size += len(piece)
            self._waiting.size += len(piece)
            self._upload.is_read = is_last
            self._changed.notify_all()

    async def _feed(self, head: bytes) -> None:
        try:
            await self._app.write(head)
            while piece := await self._next():
                await self._app.write(piece)
        except OSError:
            async with self._changed:
                self._is_refused = True
                self._changed.notify_all()
            raise

    async def _next(self) -> bytes:
        """Empty at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._pieces or self._upload.is_read)
            if not self._pieces:
                return b""
            piece = self._pieces.popleft()
            self._size -= len(piece)
            self._waiting.size -= len(piece)
            self._changed.notify_all()
            return piece

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data) if self._is_chunked else data
