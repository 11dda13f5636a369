"""Reads an app's answer as HTTP, and passes it on framed again. Used by `splice.py`.

What stands before us may use one connection for the requests of several visitors. So the client
gets one answer to its one request, whatever the app sends: with a length or in chunks, as h11
understood it, without interim answers, and nothing after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import h11

from agent.serving import compression, pages
from agent.serving.compression import Gzip, in_chunk
from agent.serving.upstream import AppConnection
from orchestrator.contract.front_pages import FrontPage
from orchestrator.contract.heads import HEAD_MAX_BYTES, reaches_visitor

CHUNK_BYTES = 64 * 1024
SWITCHING = 101
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
UPGRADE = ((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))
FRAMING = frozenset({b"content-length", b"transfer-encoding", b"trailer"})


Head = h11.Response | h11.InformationalResponse


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
        app: AppConnection,
        *,
        upgrade: bool,
    ) -> None:
        """`upgrade` tells that the app was asked to switch to WebSocket."""
        self.is_sent = False  # to the client; its head at least
        self.switches = False  # what it was asked for; known once the head is read
        self.head_is_read = asyncio.Event()
        self._client = client
        self._request = request
        self._connection = app
        self._app = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX_BYTES)
        # What an answer means depends on its request. A likeness of it is enough.
        headers = [(b"Host", b"app"), *(UPGRADE if upgrade else ())]
        self._app.send(h11.Request(method=request.method, target=b"/", headers=headers))
        self._app.send(h11.EndOfMessage())

    async def pass_on(
        self, writer: asyncio.StreamWriter, on_answer: Callable[[], Awaitable[None]]
    ) -> None:
        """Write the whole answer. `on_answer` is awaited when its head was read.

        Raises NotAnswered. If the app breaks off later, so does this: what the client got has then
        no end.
        """
        head = await self._read_head(writer)
        await on_answer()
        self.is_sent = True
        self.switches = head.status_code == SWITCHING
        self.head_is_read.set()
        headers = self._headers_for_client(head)
        gzip = self._compress(head, headers)
        chunked = self._has_body(head.status_code) and self._is_chunked(head, gzip)
        writer.write(self._head_for_client(head, headers, chunked=chunked, gzip=gzip))
        if self.switches:
            writer.write(self._app.trailing_data[0])
            await self._pass_frames(writer)
            return
        try:
            await self._pass_body(writer, gzip, chunked=chunked)
        except h11.RemoteProtocolError:
            return
        if gzip is not None:
            _write(writer, gzip.end(), chunked=chunked)
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _read_head(self, writer: asyncio.StreamWriter) -> Head:
        size = 0  # with the interim answers
        while True:
            try:
                event = self._app.next_event()
            except h11.RemoteProtocolError as error:  # also a switch that nobody asked for
                raise NotAnswered(pages.BAD_ANSWER, FrontPage.BAD_ANSWER) from error
            if event is h11.NEED_DATA:
                if size == HEAD_MAX_BYTES:
                    raise NotAnswered(pages.LONG_HEAD, FrontPage.LONG_HEAD)
                try:
                    chunk = await self._connection.read(HEAD_MAX_BYTES - size)
                except ConnectionError:
                    chunk = b""
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

    async def _pass_body(
        self, writer: asyncio.StreamWriter, gzip: Gzip | None, *, chunked: bool
    ) -> None:
        while True:
            piece = bytearray()  # what one read brought; the app may have sent it in small chunks
            try:
                while isinstance(event := self._app.next_event(), h11.Data):
                    piece += event.data
            finally:
                if piece:
                    data = piece if gzip is None else gzip.add(piece)
                    _write(writer, data, chunked=chunked)
            if event is not h11.NEED_DATA:
                return
            await writer.drain()
            self._app.receive_data(await self._connection.read(CHUNK_BYTES))

    async def _pass_frames(self, writer: asyncio.StreamWriter) -> None:
        while chunk := await self._connection.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()

    def _is_chunked(self, head: Head, gzip: Gzip | None) -> bool:
        """Whether the client gets chunks. One of HTTP/1.0 can't: the connection ends the body."""
        has_length = _length(head) is not None and gzip is None
        return not has_length and self._request.http_version >= b"1.1"

    def _compress(self, head: Head, headers: list[tuple[bytes, bytes]]) -> Gzip | None:
        """None: the body goes as it is. Changes `headers` to fit."""
        length = _length(head)
        if not compression.is_compressible(
            head.status_code,
            compression.joined(head.headers),
            None if length is None else int(length),
        ):
            return None
        vary = b", ".join(value for name, value in headers if name.lower() == b"vary")
        headers[:] = [header for header in headers if header[0].lower() != b"vary"]
        headers.append((b"Vary", compression.with_vary(vary)))
        if not self._has_body(head.status_code) or not compression.accepts_gzip(
            compression.joined(self._request.headers)
        ):
            return None
        dropped = (b"accept-ranges", b"content-encoding")
        headers[:] = [header for header in headers if header[0].lower() not in dropped]
        headers.append((b"Content-Encoding", b"gzip"))
        return Gzip()

    def _has_body(self, status: int) -> bool:
        """RFC 9112, section 6.3."""
        connects = self._request.method == b"CONNECT" and status < 300
        return not (self._request.method == b"HEAD" or connects or status in (101, 204, 304))

    def _headers_for_client(self, head: Head) -> list[tuple[bytes, bytes]]:
        dropped = FRAMING | _named_by_connection(head)
        lower = ((name.lower(), name, value) for name, value in head.headers.raw_items())
        return [
            (name, value)
            for key, name, value in lower
            if key not in dropped and reaches_visitor(key)
        ]

    def _head_for_client(
        self,
        head: Head,
        headers: list[tuple[bytes, bytes]],
        *,
        chunked: bool,
        gzip: Gzip | None,
    ) -> bytes:
        lines = [b"HTTP/1.1 %d %s" % (head.status_code, head.reason)]
        lines += [name + b": " + value for name, value in headers]
        length = _length(head)
        if chunked:
            lines.append(b"Transfer-Encoding: chunked")
        elif length is not None and gzip is None and head.status_code not in (101, 204):
            lines.append(b"Content-Length: " + length)
        if self.switches:
            lines += [name + b": " + value for name, value in UPGRADE]
        else:
            lines.append(b"Connection: close")
        return b"\r\n".join([*lines, b"", b""])


def _write(writer: asyncio.StreamWriter, data: bytes | bytearray, *, chunked: bool) -> None:
    writer.write(in_chunk(data) if chunked else data)


def _named_by_connection(head: Head) -> set[bytes]:
    """What else the app says is for this connection alone: RFC 9110, section 7.6.1."""
    lists = [value for name, value in head.headers if name == b"connection"]
    return {token.strip().lower() for token in b",".join(lists).split(b",")}


def _length(head: Head) -> bytes | None:
    """The length of the body as h11 reads it: of both, chunks count."""
    headers = dict(head.headers)
    return None if b"transfer-encoding" in headers else headers.get(b"content-length")
