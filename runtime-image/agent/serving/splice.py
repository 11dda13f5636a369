"""Forwards one request from the front to the app's process, and the answer back to the client.

Called by `front.py`. The request is framed again, exactly as h11 understood it, and is sent with
`Connection: close`. The answer is copied unchanged. A WebSocket is copied both ways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import h11

from agent.serving import pages
from agent.serving.site import Visit
from agent.serving.static_files import Answer, html_answer
from agent.serving.upstream import connect

CHUNK_BYTES = 64 * 1024
CONNECT_TIMEOUT_S = 5.0
SWITCHED = b"HTTP/1.1 101"
# RFC 9110, section 7.6.1: these concern one hop. We write our own Upgrade and Connection.
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"upgrade"})


async def forward(
    connection: h11.Connection,
    request: h11.Request,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    visit: Visit,
) -> Answer | None:
    """Return None if the app answered, otherwise the answer to give the client instead."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            app_reader, app_writer = await connect(visit.slot.port)
    except (OSError, TimeoutError):
        return html_answer(503, pages.STARTING, (("Retry-After", "1"),))
    try:
        upgrade = is_websocket(request)
        app_writer.write(head_for_app(request, upgrade=upgrade))
        if upgrade:
            opening = await _read_opening(app_reader)
            if opening:
                visit.begin_answer()
            writer.write(opening)
            if opening == SWITCHED:
                app_writer.write(connection.trailing_data[0])
                sending: Coroutine[Any, Any, object] = _copy(reader, app_writer)
            else:
                sending = _discard(reader)
        else:
            sending = _send_body(connection, request, reader, app_writer)
        await _exchange(sending, app_reader, writer, visit)
    finally:
        app_writer.close()
    return None if visit.is_answered else html_answer(502, pages.NO_ANSWER)


def is_websocket(request: h11.Request) -> bool:
    """Other upgrades, such as to HTTP/2, are forwarded as ordinary requests."""
    headers = dict(request.headers)
    tokens = headers.get(b"connection", b"").lower().replace(b" ", b"").split(b",")
    return b"upgrade" in tokens and headers.get(b"upgrade", b"").lower() == b"websocket"


def head_for_app(request: h11.Request, *, upgrade: bool) -> bytes:
    """The request head as the app sees it."""
    chunked = is_chunked(request)
    # The client's version stays: to a 1.0 client the app must not answer in chunks.
    lines = [b"%s %s HTTP/%s" % (request.method, request.target, request.http_version)]
    for name, value in request.headers.raw_items():
        lower = name.lower()
        # Two lengths for one body allow request smuggling: forward only the one that h11 used.
        if lower in HOP_BY_HOP or (chunked and lower == b"content-length"):
            continue
        lines.append(name + b": " + value)
    if upgrade:
        lines += [b"Connection: Upgrade", b"Upgrade: websocket"]
    else:
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, b"", b""])


def is_chunked(request: h11.Request) -> bool:
    return any(name == b"transfer-encoding" for name, _ in request.headers)


async def _send_body(
    connection: h11.Connection,
    request: h11.Request,
    reader: asyncio.StreamReader,
    app_writer: asyncio.StreamWriter,
) -> None:
    """Forward exactly one body, then wait until the client hangs up."""
    chunked = is_chunked(request)
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(CHUNK_BYTES))
        elif isinstance(event, h11.Data):
            data = bytes(event.data)
            app_writer.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
            await app_writer.drain()
        elif isinstance(event, h11.EndOfMessage):
            if chunked:
                app_writer.write(b"0\r\n\r\n")
            break
        else:
            return
    await _discard(reader)


async def _discard(reader: asyncio.StreamReader) -> None:
    """Wait until the client hangs up. A second request of it is thrown away."""
    while await reader.read(CHUNK_BYTES):
        pass


async def _read_opening(app_reader: asyncio.StreamReader) -> bytes:
    """The bytes that tell whether the app agreed to switch; fewer if it hung up."""
    try:
        return await app_reader.readexactly(len(SWITCHED))
    except asyncio.IncompleteReadError as error:
        return error.partial


async def _exchange(
    sending: Coroutine[Any, Any, object],
    app_reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    visit: Visit,
) -> None:
    """Copy until the app has answered, or until it or the client is gone."""
    upstream = asyncio.create_task(sending)
    downstream = asyncio.create_task(_copy(app_reader, writer, visit.begin_answer))
    try:
        await asyncio.wait({upstream, downstream}, return_when=asyncio.FIRST_COMPLETED)
        if upstream.done() and isinstance(upstream.exception(), ConnectionError):
            # The app closed its reading side early, as after an answer 413: let it finish.
            await asyncio.wait({downstream}, timeout=CONNECT_TIMEOUT_S)
    finally:
        upstream.cancel()
        downstream.cancel()
        await asyncio.gather(upstream, downstream, return_exceptions=True)


async def _copy(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    on_chunk: Callable[[], None] = lambda: None,
) -> None:
    """Copy until the reader ends."""
    while chunk := await reader.read(CHUNK_BYTES):
        on_chunk()
        writer.write(chunk)
        await writer.drain()
