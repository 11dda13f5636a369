"""Forwards one request from the front to the app's process, and the answer back to the client.

Called by `front.py`. The request is framed again, exactly as h11 understood it, and is sent with
`Connection: close`. So is the answer, by `answers.py`. A WebSocket is copied both ways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import h11

from agent.serving import pages
from agent.serving.answers import AppAnswer, NotAnswered
from agent.serving.body import Body, NoRoomForBody, Waiting
from agent.serving.site import Visit
from agent.serving.static_files import Answer, html_answer
from agent.serving.upload import Upload, UploadRefused
from agent.serving.upstream import AppConnection
from orchestrator.contract.front_pages import TRIAL_HEADER, FrontPage
from orchestrator.contract.visits import PROBE_HEADER

CHUNK_BYTES = 64 * 1024
CONNECT_TIMEOUT_S = 5.0
# RFC 9110, section 7.6.1: these concern one hop. We write our own Upgrade and Connection.
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"upgrade"})
OURS = frozenset({TRIAL_HEADER.lower().encode(), PROBE_HEADER.lower().encode()})


async def forward(
    connection: h11.Connection,
    request: h11.Request,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    visit: Visit,
    upload: Upload,
    waiting: Waiting,
) -> Answer | None:
    """Return None if the app answered, otherwise the answer to give the client instead."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            app = await AppConnection.open(visit.slot.port)
    except OSError:  # TimeoutError is one
        return _busy()
    upgrade = is_websocket(request)
    answer = AppAnswer(connection, request, app, upgrade=upgrade)
    body = Body(connection, reader, app, upload, waiting, is_chunked=is_chunked(request))

    async def begin() -> None:
        await visit.wait_until_judged()
        if visit.is_late:
            raise NotAnswered(pages.STARTING, FrontPage.STARTING)
        visit.begin_answer()
        if not upgrade:
            await body.take_rest()

    try:
        if upgrade:
            sending = _send_frames(connection, request, answer, reader, app)
        else:
            sending = _send_request(body, head_for_app(request, upgrade=False), reader)
        await _exchange(sending, answer.pass_on(writer, begin))
    except UploadRefused:
        return None if answer.is_sent else upload.refusal()
    except NoRoomForBody:
        return None if answer.is_sent else _busy()
    except NotAnswered as error:
        if visit.is_late:
            return _busy()
        return html_answer(502, error.page, pages.marked(error.mark))
    finally:
        app.close()
    if answer.is_sent:
        return None
    return html_answer(502, pages.NO_ANSWER, pages.marked(FrontPage.NO_ANSWER))


def _busy() -> Answer:
    return html_answer(
        503, pages.STARTING, (("Retry-After", "1"), *pages.marked(FrontPage.STARTING))
    )


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
        if lower in HOP_BY_HOP | OURS or (chunked and lower == b"content-length"):
            continue
        lines.append(name + b": " + value)
    if upgrade:
        lines += [b"Connection: Upgrade", b"Upgrade: websocket"]
    else:
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, b"", b""])


def is_chunked(request: h11.Request) -> bool:
    return any(name == b"transfer-encoding" for name, _ in request.headers)


async def _send_request(body: Body, head: bytes, reader: asyncio.StreamReader) -> None:
    """Forward exactly one request, then wait until the client hangs up. Raises like `Body.send`."""
    await body.send(head)
    await _discard(reader)


async def _discard(reader: asyncio.StreamReader) -> None:
    """Wait until the client hangs up. A second request of it is thrown away."""
    while await reader.read(CHUNK_BYTES):
        pass


async def _send_frames(
    connection: h11.Connection,
    request: h11.Request,
    answer: AppAnswer,
    reader: asyncio.StreamReader,
    app: AppConnection,
) -> None:
    """Copy what the client sends once the app has switched to WebSocket; else wait for its end."""
    await app.write(head_for_app(request, upgrade=True))
    await answer.head_is_read.wait()
    if answer.switches:
        await app.write(connection.trailing_data[0])
        while chunk := await reader.read(CHUNK_BYTES):
            await app.write(chunk)
    else:
        await _discard(reader)


async def _exchange(
    sending: Coroutine[Any, Any, None], receiving: Coroutine[Any, Any, None]
) -> None:
    """Run both until the app has answered, or until it or the client is gone.

    Raises NotAnswered if `receiving` does, UploadRefused and NoRoomForBody if `sending` does.
    """
    upstream = asyncio.create_task(sending)
    downstream = asyncio.create_task(receiving)
    try:
        await asyncio.wait({upstream, downstream}, return_when=asyncio.FIRST_COMPLETED)
        if upstream.done() and isinstance(upstream.exception(), ConnectionError):
            # The app closed its reading side early, as after an answer 413: let it finish.
            await asyncio.wait({downstream}, timeout=CONNECT_TIMEOUT_S)
    finally:
        upstream.cancel()
        downstream.cancel()
        sent, outcome = await asyncio.gather(upstream, downstream, return_exceptions=True)
    if isinstance(sent, UploadRefused | NoRoomForBody):
        raise sent
    if isinstance(outcome, NotAnswered):
        raise outcome
