"""Takes the body of one request from its client, and passes it on to the app.

Used by `front.py` and `splice.py`. A small body is taken whole before the app hears of the request:
an app that serves one visitor at a time would else wait for the slowest of them. A larger one goes
through at the pace of the app until that answers. Then the rest of it is taken from the client at
once and waits here, and only then the answer goes on: once a proxy has the head of an answer, nginx
no longer hears that we have room for more of the body, and both would wait for ever
(ngx_http_upstream_send_request_handler does nothing after `header_sent`).
"""

from __future__ import annotations

import asyncio

import h11

from agent.serving.compression import in_chunk
from agent.serving.upload import Upload
from agent.serving.upstream import AppConnection

CHUNK_BYTES = 64 * 1024
COLLECTED_BYTES = 128 * 1024
"""Of one body that wait before the app answers. A form or a call of an API has less."""
WAITING_MAX_BYTES = 64 * 1024 * 1024
"""Of all bodies, before their apps are asked and while they answer. As many as all visitors
together may have collected, and more than an upload at its limit. Counts as the sandbox's memory,
as a file in its tmpfs would."""
PAUSE_S = 0.5
"""Nothing has come for so long: the client waits for the answer, as in a conversation of both."""


class NoRoomForBody(Exception):
    """Too much waits already."""


class BrokenBody(Exception):
    """It ends before its end, or is not framed as HTTP."""


class Waiting:
    """Counts the bytes of all bodies that wait."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size = 0


class Body:
    """One request's body, between its client and the app. Release it at the end."""

    def __init__(
        self,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        upload: Upload,
        waiting: Waiting,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._upload = upload
        self._waiting = waiting
        self._bytes = bytearray()  # framed, as the app gets them; small pieces cost no more
        self._is_answered = False
        self._is_refused = False  # the app reads no more
        self._changed = asyncio.Condition()

    def release(self) -> None:
        """Forget what still waits."""
        self._waiting.size -= len(self._bytes)
        self._bytes.clear()

    async def collect(self) -> None:
        """Take a small body whole. Call it before there is a connection to the app.

        Of a body without a length only what comes without a pause: it may be a conversation. None
        of a large one, and none from a client that waits until the app has said "100 Continue".
        Raises UploadRefused, NoRoomForBody or BrokenBody.
        """
        if self._upload.length > COLLECTED_BYTES:
            return
        while not self._upload.is_read and len(self._bytes) < COLLECTED_BYTES:
            event = self._next_event()
            if event is not h11.NEED_DATA:
                self._add(event, is_counted=True)
            elif self._connection.they_are_waiting_for_100_continue or await self._is_paused():
                return

    async def send(self, app: AppConnection, head: bytes) -> None:
        """Send the head and the whole body to the app.

        Raises OSError if the app reads no more, UploadRefused, NoRoomForBody or BrokenBody; the
        app has got only a part of the body then.
        """
        if self._upload.is_read:
            await self._feed(app, head)
            return
        tasks = [asyncio.create_task(work) for work in (self._take(), self._feed(app, head))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

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
        while not self._upload.is_read:
            event = self._next_event()
            if event is h11.NEED_DATA:
                self._connection.receive_data(await self._upload.read(self._reader))
                continue
            async with self._changed:
                await self._changed.wait_for(self._has_room)
                self._add(event, is_counted=self._is_answered)
                self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._is_answered or len(self._bytes) < COLLECTED_BYTES

    async def _is_paused(self) -> bool:
        """Wait for more. True if nothing has come for a while, of a body without a length."""
        try:
            async with asyncio.timeout(PAUSE_S if self._upload.is_chunked else None):
                self._connection.receive_data(await self._upload.read(self._reader))
        except TimeoutError:
            return True
        return False

    def _next_event(self) -> object:
        try:
            return self._connection.next_event()
        except h11.RemoteProtocolError as error:
            raise BrokenBody from error

    def _add(self, event: object, *, is_counted: bool) -> None:
        if isinstance(event, h11.Data):
            self._upload.count(len(event.data))
            piece = in_chunk(event.data) if self._upload.is_chunked else event.data
        elif isinstance(event, h11.EndOfMessage):
            piece = b"0\r\n\r\n" if self._upload.is_chunked else b""
        else:
            raise BrokenBody
        if is_counted and self._waiting.size + len(piece) > self._waiting.max_bytes:
            raise NoRoomForBody
        self._bytes += piece
        self._waiting.size += len(piece)
        self._upload.is_read = isinstance(event, h11.EndOfMessage)

    async def _feed(self, app: AppConnection, head: bytes) -> None:
        try:
            await app.write(head + await self._pop())
            while piece := await self._next():
                await app.write(piece)
        except OSError:
            async with self._changed:
                self._is_refused = True
                self._changed.notify_all()
            raise

    async def _next(self) -> bytes:
        """Empty at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._bytes or self._upload.is_read)
        return await self._pop()

    async def _pop(self) -> bytes:
        async with self._changed:
            piece = bytes(self._bytes[:CHUNK_BYTES])
            del self._bytes[: len(piece)]
            self._waiting.size -= len(piece)
            self._changed.notify_all()
            return piece
