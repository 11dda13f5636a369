"""The front: the only port that the outside reaches. Started by `main.py` before anything else.

It takes one request per connection. So no request for another host can follow one that is for us,
unchecked, on the same connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace

import h11

from agent.serving import compression, pages, splice, static_files
from agent.serving.body import WAITING_MAX_BYTES, Body, Waiting
from agent.serving.compression import Gzip, in_chunk
from agent.serving.site import Serving, Site, Trial, Visit
from agent.serving.static_files import FOREVER, Answer, Folder, Request, html_answer, text_answer
from agent.serving.upload import BODY_GRACE_S, Upload
from agent.serving.upstream import CONNECT_TIMEOUT_S, LOOKS_S, AppConnection, QueueFull
from orchestrator.contract.front_pages import TRIAL_HEADER, FrontPage
from orchestrator.contract.heads import HEAD_MAX_BYTES, HEAD_ROOM_BYTES
from orchestrator.contract.visits import APP_CONNECTIONS_MAX, OWN_CONNECTIONS_ROOM, PROBE_HEADER

HEAD_TIMEOUT_S = 15.0
MAX_HEAD_BYTES = HEAD_MAX_BYTES + HEAD_ROOM_BYTES
CHUNK_BYTES = 64 * 1024
LAST_CHUNK = b"0\r\n\r\n"
LIBRARIES_PREFIX = "/_lib/"
NOT_ASCII = re.compile(rb"[\x80-\xff]")
"""In a request line. Browsers encode an address, other clients may send it as it was typed."""
RETRY = (("Retry-After", "1"),)
REASONS = {
    200: "OK",
    206: "Partial Content",
    304: "Not Modified",
    308: "Permanent Redirect",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    416: "Range Not Satisfiable",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
}


class Front:
    """Accepts connections, reads one request head from each, and answers it or forwards it."""

    def __init__(
        self,
        site: Site,
        *,
        connections_max: int = APP_CONNECTIONS_MAX,
        head_timeout_s: float = HEAD_TIMEOUT_S,
        body_grace_s: float = BODY_GRACE_S,
        waiting_max_bytes: int = WAITING_MAX_BYTES,
    ) -> None:
        """`waiting_max_bytes` is for the bodies of all requests."""
        self._site = site
        self._connections_max = connections_max
        self._head_timeout_s = head_timeout_s
        self._body_grace_s = body_grace_s
        self._open = 0
        self._waiting = Waiting(waiting_max_bytes)

    async def listen(self, host: str, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._serve, host, port, backlog=256)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            await self._serve_request(reader, writer)
        except OSError:  # TimeoutError is one
            pass  # the client went away, or never sent a whole head
        finally:
            self._open -= 1
            writer.close()

    async def _serve_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        try:
            async with asyncio.timeout(self._head_timeout_s):
                request = await _read_head(connection, reader)
        except h11.RemoteProtocolError as error:
            request = text_answer(error.error_status_hint, b"bad request\n")
        if isinstance(request, Answer):
            await _write(writer, request, head_only=False)
            return
        if request is None:
            return
        upload = Upload(request, self._site.upload_max_bytes, grace_s=self._body_grace_s)
        trial = trial_of(self._site, request)
        is_own = trial is not None or _header(request, PROBE_HEADER.lower().encode()) is not None
        places = self._connections_max + (OWN_CONNECTIONS_ROOM if is_own else 0)
        if upload.is_too_large:
            answer: Answer | None = upload.refusal()
        elif self._open > places:
            mark = pages.marked(FrontPage.STARTING)
            answer = text_answer(503, b"too many connections\n", (*RETRY, *mark))
        else:
            answer = decide(self._site, request)
            if trial is not None:
                trial.requests += 1
        if answer is None:
            answer = splice.ASK_AGAIN
            while answer is splice.ASK_AGAIN:
                answer = await self._forward(connection, request, reader, writer, upload)
        if answer is not None:
            gzip = compression.accepts_gzip(compression.joined(request.headers))
            gzip = gzip and request.http_version >= b"1.1"
            await _write(writer, answer, head_only=request.method == b"HEAD", accepts_gzip=gzip)
        await upload.linger(reader, writer)

    async def _forward(
        self,
        connection: h11.Connection,
        request: h11.Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upload: Upload,
    ) -> Answer | None:
        """Have the app answer. Return None if it did, else what to answer instead."""
        body = Body(connection, reader, upload, self._waiting)
        try:
            if not splice.is_websocket(request):
                await body.collect()
            with contextlib.ExitStack() as stack:
                entered = await self._enter(request, stack)
                if isinstance(entered, Answer):
                    return entered
                visit, app = entered
                return await splice.forward(
                    connection, request, reader, writer, visit, app, upload, body
                )
        except splice.BODY_ERRORS as error:
            return splice.refusal(error, upload)
        finally:
            body.release()

    async def _enter(
        self, request: h11.Request, stack: contextlib.ExitStack
    ) -> tuple[Visit, AppConnection] | Answer:
        """Connect to the app, in turn. Return what to answer instead if that isn't to be.

        `stack` ends the visit.
        """
        while True:
            trial = trial_of(self._site, request)  # now: it may have ended meanwhile
            if trial is None and not await self._site.pass_hold():
                return splice.BUSY
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S), (trial or self._site).entrance:
                    entered = await self._enter_in_turn(request, trial, stack)
            except OSError:  # TimeoutError is one
                return splice.BUSY
            if entered is not None:
                return entered

    async def _enter_in_turn(
        self, request: h11.Request, trial: Trial | None, stack: contextlib.ExitStack
    ) -> tuple[Visit, AppConnection] | Answer | None:
        """None: requests are held again, or the trial has ended."""
        limit_s, most_s = LOOKS_S
        while trial_of(self._site, request) is trial and not (trial is None and self._site.is_held):
            answer = decide(self._site, request)
            if answer is not None:
                return answer
            # From the look at the hold until the visit nothing else may happen: whoever holds the
            # requests waits for the visits that it sees. While the app's queue is full there is
            # none: the app hasn't got the request, so the next version may get it.
            slot = (trial or self._site).slot
            visit = stack.enter_context(self._site.visit(slot, request.method))
            with contextlib.suppress(QueueFull):
                return visit, await AppConnection.open(slot.port, limit_s=limit_s)
            stack.close()
            limit_s = min(2 * limit_s, most_s)
        return None


def decide(site: Site, request: h11.Request) -> Answer | None:
    """What to answer, or None if the request goes to the app's process."""
    if not site.is_ours(_header(request, b"host") or ""):
        mark = pages.marked(FrontPage.MISDIRECTED)
        return text_answer(421, b"this address is served elsewhere\n", mark)
    shown: Site | Trial = trial_of(site, request) or site
    if shown.serving is Serving.NOTHING:
        return html_answer(404, pages.NOT_ASSIGNED, pages.marked(FrontPage.NOTHING))
    asked = Request(
        method=request.method.decode("ascii", "replace"),
        target=request.target.decode("ascii", "replace"),
        accept=_header(request, b"accept"),
        if_none_match=_header(request, b"if-none-match"),
        if_range=_header(request, b"if-range"),
        range=_header(request, b"range"),
    )
    if asked.target.startswith(LIBRARIES_PREFIX):
        libraries = Folder(root=site.libraries, cache_control=FOREVER)
        below = replace(asked, target=asked.target[len(LIBRARIES_PREFIX) - 1 :])
        return static_files.answer(libraries, below)
    if shown.serving is Serving.STARTING:
        return splice.BUSY
    if shown.serving is Serving.STOPPED:
        return html_answer(503, pages.STOPPED, pages.marked(FrontPage.STOPPED))
    if shown.serving is Serving.FILES:
        return static_files.answer(shown.files, asked)
    return None


def trial_of(site: Site, request: h11.Request) -> Trial | None:
    """The version that a request is for, if it is one that isn't shown."""
    return site.trial_for(_header(request, TRIAL_HEADER.lower().encode()))


def _header(request: h11.Request, name: bytes) -> str | None:
    """A header's value; None if there is none. Several lines of one name are one list."""
    values = [value for key, value in request.headers if key == name]
    return b", ".join(values).decode("latin-1") if values else None


async def _read_head(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> h11.Request | Answer | None:
    """The request, what to answer instead, or None if the client has gone.

    Raises h11.RemoteProtocolError.
    """
    size = 0
    is_first_line = True
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        if size == MAX_HEAD_BYTES:
            return html_answer(431, pages.LONG_REQUEST)
        chunk = await reader.read(MAX_HEAD_BYTES - size)
        size += len(chunk)
        if is_first_line:
            line, end, rest = chunk.partition(b"\n")
            is_first_line = not end
            chunk = NOT_ASCII.sub(_encode, line) + end + rest
        connection.receive_data(chunk)


def _encode(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % ord(match[0])


async def _write(
    writer: asyncio.StreamWriter, answer: Answer, *, head_only: bool, accepts_gzip: bool = False
) -> None:
    gzip = None
    if compression.is_own_compressible(answer.unchanged or answer):
        is_compressed = accepts_gzip and not head_only and answer.unchanged is None
        answer = replace(
            answer, headers=compression.own_headers(answer, is_compressed=is_compressed)
        )
        gzip = Gzip() if is_compressed else None
    lines = [f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Error')}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines += ["Connection: close", "", ""]
    writer.write("\r\n".join(lines).encode("latin-1", "replace"))
    if not head_only:
        for chunk in _body_of(answer):
            writer.write(chunk if gzip is None else in_chunk(gzip.add(chunk)))
            await writer.drain()
        if gzip is not None:
            writer.write(in_chunk(gzip.end()) + LAST_CHUNK)
    await writer.drain()


def _body_of(answer: Answer) -> Iterator[bytes]:
    if answer.path is None:
        if answer.body:
            yield answer.body
        return
    # Blocking reads: the folder is a tmpfs, so they are copies within memory.
    with static_files.open_file(answer.path) as source:
        source.seek(answer.span.start)
        left = len(answer.span)
        while chunk := source.read(min(CHUNK_BYTES, left)):
            yield chunk
            left -= len(chunk)
