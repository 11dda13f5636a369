"""Reads an app's answer as HTTP, and passes it on framed again. Used by `splice.py`.

What stands before us may use one connection for the requests of several visitors. So the client
gets one answer to its one request, whatever the app sends: with a length or in chunks, as h11
understood it, without interim answers, and nothing after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import h11

from agent.serving import pages
from orchestrator.contract.front_pages import PAGE_HEADER, FrontPage
from orchestrator.contract.heads import HEAD_MAX_BYTES

CHUNK_BYTES = 64 * 1024
SWITCHING = 101
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
UPGRADE = ((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection"})
FRAMING = frozenset({b"content-length", b"transfer-encoding", b"trailer"})
OURS = frozenset({PAGE_HEADER.lower().encode()})
"""An app's answer must not pass for one of ours."""


class NotAnswered(Exception):
    """The app sent nothing that can be passed on. Nothing was sent to the client either."""

    def __init__(self, page: bytes, mark: FrontPage) -> None:
        super().__init__(page)
        self.page = page  # says to the visitor what was wrong
        self.mark = mark


class AppAnswer:
    """The answer to one request."""

    def __init__(
        self,
        client: h11.Connection,
        request: h11.Request,
        reader: asyncio.StreamReader,
        *,
        upgrade: bool,
    ) -> None:
        """`upgrade` tells that the app was asked to switch to WebSocket."""
        self.switches = False  # what it was asked for; known once the head is read
        self.head_is_read = asyncio.Event()
        self._client = client
        self._request = request
        self._reader = reader
        self._app = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX_BYTES)
        # What an answer means depends on its request. A likeness of it is enough.
        headers = [(b"Host", b"app"), *(UPGRADE if upgrade else ())]
        self._app.send(h11.Request(method=request.method, target=b"/", headers=headers))
        self._app.send(h11.EndOfMessage())

    async def pass_on(self, writer: asyncio.StreamWriter, on_answer: Callable[[], None]) -> None:
        """Write the whole answer. `on_answer` is called when its head was read.

        Raises NotAnswered. If the app breaks off later, so does this: what the client got has then
        no end.
        """
        head = await self._read_head(writer)
        on_answer()
        self.switches = head.status_code == SWITCHING
        self.head_is_read.set()
        chunked = self._is_chunked(head)
        writer.write(self._head_for_client(head, chunked=chunked))
        if self.switches:
            writer.write(self._app.trailing_data[0])
            await copy(self._reader, writer)
            return
        try:
            await self._pass_body(writer, chunked=chunked)
        except h11.RemoteProtocolError:
            return
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _read_head(
        self, writer: asyncio.StreamWriter
    ) -> h11.Response | h11.InformationalResponse:
        size = 0  # with the interim answers
        while True:
            try:
                event = self._app.next_event()
            except h11.RemoteProtocolError as error:  # also a switch that nobody asked for
                raise NotAnswered(pages.BAD_ANSWER, FrontPage.BAD_ANSWER) from error
            if event is h11.NEED_DATA:
                if size == HEAD_MAX_BYTES:
                    raise NotAnswered(pages.LONG_HEAD, FrontPage.LONG_HEAD)
                chunk = await self._reader.read(HEAD_MAX_BYTES - size)
                if not chunk:
                    raise NotAnswered(pages.NO_ANSWER, FrontPage.NO_ANSWER)
                size += len(chunk)
                self._app.receive_data(chunk)
            elif isinstance(event, h11.Response):
                return event
            elif not isinstance(event, h11.InformationalResponse):
                raise NotAnswered(pages.NO_ANSWER, FrontPage.NO_ANSWER)
            elif event.status_code == SWITCHING:
                return event
            elif event.status_code == 100 and self._client.they_are_waiting_for_100_continue:
                self._client.send(h11.InformationalResponse(status_code=100, headers=[]))
                writer.write(CONTINUE)

    async def _pass_body(self, writer: asyncio.StreamWriter, *, chunked: bool) -> None:
        while True:
            piece = bytearray()  # what one read brought; the app may have sent it in small chunks
            try:
                while isinstance(event := self._app.next_event(), h11.Data):
                    piece += event.data
            finally:
                if piece:
                    writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            if event is not h11.NEED_DATA:
                return
            await writer.drain()
            self._app.receive_data(await self._reader.read(CHUNK_BYTES))

    def _is_chunked(self, head: h11.Response | h11.InformationalResponse) -> bool:
        """Whether the client gets chunks. One of HTTP/1.0 can't: the connection ends the body."""
        return (
            self._has_body(head.status_code)
            and _length(head) is None
            and self._request.http_version >= b"1.1"
        )

    def _has_body(self, status: int) -> bool:
        """RFC 9112, section 6.3."""
        connects = self._request.method == b"CONNECT" and status < 300
        return not (self._request.method == b"HEAD" or connects or status in (101, 204, 304))

    def _head_for_client(
        self, head: h11.Response | h11.InformationalResponse, *, chunked: bool
    ) -> bytes:
        lines = [b"HTTP/1.1 %d %s" % (head.status_code, head.reason)]
        dropped = HOP_BY_HOP | FRAMING | OURS | ({b"upgrade"} if self.switches else set())
        for name, value in head.headers.raw_items():
            if name.lower() not in dropped:
                lines.append(name + b": " + value)
        length = _length(head)
        if chunked:
            lines.append(b"Transfer-Encoding: chunked")
        elif length is not None and head.status_code not in (101, 204):
            lines.append(b"Content-Length: " + length)
        if self.switches:
            lines += [name + b": " + value for name, value in UPGRADE]
        else:
            lines.append(b"Connection: close")
        return b"\r\n".join([*lines, b"", b""])


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the reader ends."""
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()


def _length(head: h11.Response | h11.InformationalResponse) -> bytes | None:
    """The length of the body as h11 reads it: of both, chunks count."""
    headers = dict(head.headers)
    return None if b"transfer-encoding" in headers else headers.get(b"content-length")
