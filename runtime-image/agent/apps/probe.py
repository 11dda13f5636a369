"""Sends requests to an app that the front doesn't show yet. Used by `workshop.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import h11

from agent.apps.app import App
from agent.layout import BROWSER_LIBRARIES
from agent.serving import static_files
from agent.serving.static_files import Folder, Request
from agent.serving.upstream import connect
from orchestrator.contract.heads import HEAD_MAX_BYTES
from orchestrator.contract.health import (
    BROWSER_HEADERS,
    ENDLESS_AFTER_S,
    PART_HEADERS,
    PATIENCE_S,
)
from orchestrator.contract.page_bodies import decoded

LIBRARIES_PREFIX = "/_lib/"
CHUNK_BYTES = 64 * 1024
DECODED_MAX_BYTES = 2 * 1024 * 1024
AWAITED_TYPES = ("css", "javascript", "ecmascript", "html")
"""In the media type of what a browser needs all of, before it shows or runs it."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The answer to one request. Without an answer `status` is 0 and `problem` says why."""

    path: str
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()  # names in lower case
    body: bytes = b""  # only its beginning
    is_whole: bool = False  # the body is all there is
    is_endless: bool = False  # it went on for as long as we waited
    unreadable: str = ""  # its Content-Encoding, if the body isn't that
    problem: str = ""


async def get(
    app: App,
    path: str,
    *,
    max_bytes: int,
    navigates: bool = False,
    cookie: str = "",
    limit_s: float = PATIENCE_S,
) -> Page:
    """GET a path that begins with a slash; at most `max_bytes` of the body.

    `navigates`: as a browser that opens a page, and not as one that loads a part of it.
    `cookie` is the header. A part that a browser shows while it comes, such as the pictures of a
    camera, may go on for ever: then it takes ENDLESS_AFTER_S.
    """
    headers = BROWSER_HEADERS if navigates else PART_HEADERS
    cookies = [("Cookie", cookie)] if cookie else []
    reading = _Reading(path, max_bytes, navigates=navigates)
    try:
        if path.startswith(LIBRARIES_PREFIX):
            below = path[len(LIBRARIES_PREFIX) - 1 :]
            libraries = Folder(root=BROWSER_LIBRARIES)
            return _from_files(libraries, path, Request(method="GET", target=below), max_bytes)
        if app.static:
            request = Request(method="GET", target=path, accept=dict(headers)["Accept"])
            return _from_files(app.files, path, request, max_bytes)
        async with asyncio.timeout(limit_s) as limit:
            reading.limit = limit
            return await _from_process(app.slot.port, [*headers, *cookies], reading)
    except TimeoutError:
        return reading.unended(limit_s)
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

    def __init__(self, path: str, max_bytes: int, *, navigates: bool = False) -> None:
        self.path = path
        self.limit: asyncio.Timeout | None = None  # for all of it
        self._head: h11.Response | None = None
        self._navigates = navigates
        self._is_whole = False
        self._max_bytes = max_bytes
        self._body = bytearray()

    async def read(self, connection: h11.Connection, reader: asyncio.StreamReader) -> Page:
        head_size = 0
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA and self._head is None:
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
                self._head = event
                self._bound()
            elif isinstance(event, h11.Data):
                self._body += event.data
            self._is_whole = isinstance(event, h11.EndOfMessage)
            # Of an endless answer, such as server-sent events, the beginning is enough.
            is_complete = self._is_whole or len(self._body) >= self._max_bytes
            if self._head is not None and is_complete:
                return self.page()

    def page(self) -> Page:
        """What has come, once there is a head. An app may compress although nobody asked it to."""
        assert self._head is not None
        coding = self._headers.get("content-encoding", "")
        body = decoded(bytes(self._body), coding, DECODED_MAX_BYTES)
        headers = [(name.decode(), value.decode("latin-1")) for name, value in self._head.headers]
        return Page(
            path=self.path,
            status=self._head.status_code,
            headers=tuple(headers),
            body=(bytes(self._body) if body is None else body)[: self._max_bytes],
            is_whole=self._is_whole,
            unreadable=coding if body is None else "",
        )

    def unended(self, limit_s: float) -> Page:
        """What has come when the time was over, if a browser shows that much of it."""
        head = self._head
        if head is None or (head.status_code >= 400 and not self._navigates):
            return Page(path=self.path, problem=f"no whole answer within {limit_s:g} s")
        if self._is_awaited and not self._navigates:
            problem = f"its end has not come within {limit_s:g} s, and browsers wait for that"
            return Page(path=self.path, problem=problem)
        return replace(self.page(), is_endless=True)

    def _bound(self) -> None:
        """Wait for the end of an answer only if a browser does."""
        if self.limit is not None and not self._navigates and not self._is_awaited:
            ends_at_s = asyncio.get_running_loop().time() + ENDLESS_AFTER_S
            self.limit.reschedule(min(self.limit.when() or ends_at_s, ends_at_s))

    @property
    def _headers(self) -> dict[str, str]:
        assert self._head is not None
        return {name.decode(): value.decode("latin-1") for name, value in self._head.headers}

    @property
    def _is_awaited(self) -> bool:
        kind = self._headers.get("content-type", "").lower()
        return any(name in kind for name in AWAITED_TYPES)
