"""Sends requests to an app that the front doesn't show yet. Used by `workshop.py`."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import h11

from agent.apps.app import App
from agent.layout import BROWSER_LIBRARIES
from agent.serving import static_files
from agent.serving.static_files import Folder, Request
from agent.serving.upstream import connect
from orchestrator.contract.heads import HEAD_MAX_BYTES
from orchestrator.contract.health import BROWSER_HEADERS, PART_HEADERS

LIBRARIES_PREFIX = "/_lib/"
LIMIT_S = 10.0
CHUNK_BYTES = 64 * 1024
DECODED_MAX_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Page:
    """The answer to one request. Without an answer `status` is 0 and `problem` says why."""

    path: str
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()  # names in lower case
    body: bytes = b""  # only its beginning
    is_whole: bool = False  # the body is all there is
    problem: str = ""


async def get(
    app: App,
    path: str,
    *,
    max_bytes: int,
    navigates: bool = False,
    cookie: str = "",
    limit_s: float = LIMIT_S,
) -> Page:
    """GET a path that begins with a slash; at most `max_bytes` of the body.

    `navigates`: as a browser that opens a page, and not as one that loads a part of it.
    `cookie` is the header.
    """
    headers = BROWSER_HEADERS if navigates else PART_HEADERS
    cookies = [("Cookie", cookie)] if cookie else []
    reading = _Reading(path, max_bytes)
    try:
        if path.startswith(LIBRARIES_PREFIX):
            below = path[len(LIBRARIES_PREFIX) - 1 :]
            libraries = Folder(root=BROWSER_LIBRARIES)
            return _from_files(libraries, path, Request(method="GET", target=below), max_bytes)
        if app.static:
            request = Request(method="GET", target=path, accept=dict(headers)["Accept"])
            return _from_files(app.files, path, request, max_bytes)
        async with asyncio.timeout(limit_s):
            return await _from_process(app.slot.port, [*headers, *cookies], reading)
    except TimeoutError:
        # A browser shows what has come of it, such as the pictures of a camera.
        if reading.head is not None and (navigates or reading.head.status_code < 400):
            return reading.page()
        return Page(path=path, problem=f"no whole answer within {limit_s:g} s")
    except (OSError, h11.ProtocolError) as error:
        return Page(path=path, problem=str(error) or type(error).__name__)


def _from_files(folder: Folder, path: str, request: Request, max_bytes: int) -> Page:
    answer = static_files.answer(folder, request)
    body = answer.body
    if answer.path is not None:
        with static_files.open_file(answer.path) as source:
            body = source.read(max_bytes)
    headers = tuple((name.lower(), value) for name, value in answer.headers)
    is_whole = len(body) < max_bytes
    return Page(
        path=path,
        status=answer.status,
        headers=headers,
        body=body[:max_bytes],
        is_whole=is_whole,
    )


async def _from_process(port: int, headers: Sequence[tuple[str, str]], reading: _Reading) -> Page:
    reader, writer = await connect(port)
    try:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX_BYTES)
        sent = [("Host", "localhost"), *headers, ("Connection", "close")]
        lines = [(name.encode(), value.encode("latin-1", "replace")) for name, value in sent]
        request = h11.Request(method="GET", target=reading.path, headers=lines)
        writer.write(connection.send(request) or b"")
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        return await reading.read(connection, reader)
    finally:
        writer.close()


class _Reading:
    """One answer, as far as it has come."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self.path = path
        self.head: h11.Response | None = None
        self._is_whole = False
        self._max_bytes = max_bytes
        self._body = bytearray()

    async def read(self, connection: h11.Connection, reader: asyncio.StreamReader) -> Page:
        head_size = 0
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA and self.head is None:
                if head_size == HEAD_MAX_BYTES:
                    problem = f"the head of the answer has more than {HEAD_MAX_BYTES // 1024} KiB"
                    return Page(path=self.path, problem=problem)
                chunk = await reader.read(HEAD_MAX_BYTES - head_size)
                if not chunk:
                    problem = "the app closed the connection without an answer"
                    return Page(path=self.path, problem=problem)
                head_size += len(chunk)
                connection.receive_data(chunk)
                continue
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(CHUNK_BYTES))
                continue
            if isinstance(event, h11.Response):
                self.head = event
            elif isinstance(event, h11.Data):
                self._body += event.data
            self._is_whole = isinstance(event, h11.EndOfMessage)
            # Of an endless answer, such as server-sent events, the beginning is enough.
            is_complete = self._is_whole or len(self._body) >= self._max_bytes
            if self.head is not None and is_complete:
                return self.page()

    def page(self) -> Page:
        """What has come, once there is a head."""
        assert self.head is not None
        headers = [(name.decode(), value.decode("latin-1")) for name, value in self.head.headers]
        body = _decoded(bytes(self._body), dict(headers).get("content-encoding", ""))
        return Page(
            path=self.path,
            status=self.head.status_code,
            headers=tuple(headers),
            body=body[: self._max_bytes],
            is_whole=self._is_whole,
        )


def _decoded(body: bytes, coding: str) -> bytes:
    """An app may compress although nobody asked it to. As far as it can be read."""
    if coding.lower() not in {"gzip", "deflate"}:
        return body
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, DECODED_MAX_BYTES)
    except zlib.error:
        return body
