"""Forwards one request from the front to the app's process, and the answer back to the client.

Called by `front.py`. The request is framed again, exactly as h11 understood it, and is sent with
`Connection: close`. So is the answer, by `answers.py`. A WebSocket is copied both ways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import h11

from agent.serving import pages
from agent.serving.answers import AppAnswer, NotAnswered
from agent.serving.body import Body, BrokenBody, NoRoomForBody
from agent.serving.site import Visit
from agent.serving.static_files import Answer, html_answer, text_answer
from agent.serving.upload import Upload, UploadRefused
from agent.serving.upstream import CONNECT_TIMEOUT_S, AppConnection
from orchestrator.contract.front_pages import FrontPage
from orchestrator.contract.heads import reaches_app

CHUNK_BYTES = 64 * 1024
BUSY = html_answer(503, pages.STARTING, (("Retry-After", "1"), *pages.marked(FrontPage.STARTING)))
ASK_AGAIN = replace(BUSY)
"""Not for the client: another version is shown by now, and to ask that one does no harm."""
BAD_REQUEST = text_answer(400, b"bad request\n")
BODY_ERRORS = (UploadRefused, NoRoomForBody, BrokenBody)


async def forward(
    connection: h11.Connection,
    request: h11.Request,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    visit: Visit,
    app: AppConnection,
    upload: Upload,
    body: Body,
) -> Answer | None:
    """Return None if the app answered, otherwise the answer to give the client instead."""
    upgrade = is_websocket(request)
    answer = AppAnswer(connection, request, app, upgrade=upgrade)

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
            sending = _send_request(body, app, head_for_app(request, upgrade=False), reader)
        await _exchange(sending, answer.pass_on(writer, begin))
    except BODY_ERRORS as error:
        return None if answer.is_sent else refusal(error, upload)
    except NotAnswered as error:
        if visit.is_late:
            return BUSY if visit.may_write or not upload.is_empty else ASK_AGAIN
        return html_answer(502, error.page, pages.marked(error.mark))
    finally:
        app.close()
    if answer.is_sent:
        return None
    return html_answer(502, pages.NO_ANSWER, pages.marked(FrontPage.NO_ANSWER))


def refusal(error: Exception, upload: Upload) -> Answer:
    """What to answer instead, after one of BODY_ERRORS."""
    if isinstance(error, NoRoomForBody):
        return BUSY
    return upload.refusal() if isinstance(error, UploadRefused) else BAD_REQUEST


def is_websocket(request: h11.Request) -> bool:
    """Other upgrades, such as to HTTP/2, are forwarded as ordinary requests."""
    headers = dict(request.headers)
    tokens = headers.get(b"connection", b"").lower().replace(b" ", b"").split(b",")
    return b"upgrade" in tokens and headers.get(b"upgrade", b"").lower() == b"websocket"


def head_for_app(request: h11.Request, *, upgrade: bool) -> bytes:
    """The request head as the app sees it, with our own Connection and Upgrade."""
    chunked = is_chunked(request)
    # The client's version stays: to a 1.0 client the app must not answer in chunks.
    lines = [b"%s %s HTTP/%s" % (request.method, request.target, request.http_version)]
    for name, value in request.headers.raw_items():
        lower = name.lower()
        # Two lengths for one body allow request smuggling: forward only the one that h11 used.
        if not reaches_app(lower) or (chunked and lower == b"content-length"):
            continue
        lines.append(name + b": " + value)
    if upgrade:
        lines += [b"Connection: Upgrade", b"Upgrade: websocket"]
    else:
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, b"", b""])


def is_chunked(request: h11.Request) -> bool:
    return any(name == b"transfer-encoding" for name, _ in request.headers)


async def _send_request(
    body: Body, app: AppConnection, head: bytes, reader: asyncio.StreamReader
) -> None:
    """Forward exactly one request, then wait until the client hangs up. Raises like `Body.send`."""
    await body.send(app, head)
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

    Raises NotAnswered if `receiving` does, and one of BODY_ERRORS if `sending` does.
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
    if isinstance(sent, BODY_ERRORS):
        raise sent
    if isinstance(outcome, NotAnswered):
        raise outcome
