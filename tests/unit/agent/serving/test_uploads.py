"""Bodies at, above and beside the limit, at a front that is asked past the proxy."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import h11
import pytest
from agent.serving.site import Serving, Site, Slot
from agent.serving.static_files import Folder
from agent.serving.upload import Upload, UploadRefused

from tests.unit.agent.serving.test_conversations import converse, sends

LIMIT_BYTES = 200_000
"""More than a small body, of which an app hears only when it is there."""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(slot=Slot(folder=str(tmp_path), port=1))
    site.upload_max_bytes = LIMIT_BYTES
    site.answer_to("mine")
    site.show(Serving.FILES, site.slot, Folder(root=str(tmp_path)))
    return site


def post(body: bytes, *, chunked: bool, accept: bytes = b"*/*") -> bytes:
    head = b"POST / HTTP/1.1\r\nHost: mine\r\nAccept: " + accept + b"\r\n"
    if chunked:
        framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + framed
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """An app that answers once it has the whole body, or when that ends."""
    head = await reader.readuntil(b"\r\n\r\n")
    received = b""
    while (b"chunked" in head and not received.endswith(b"0\r\n\r\n")) or (
        b"Content-Length" in head and len(received) < LIMIT_BYTES
    ):
        piece = await reader.read(65536)
        if not piece:
            return received
        received += piece
    writer.write(OK)
    return received


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_at_the_limit_arrives(site: Site, chunked: bool) -> None:
    client = sends(post(b"x" * LIMIT_BYTES, chunked=chunked))
    answer, received = converse(site, client, app=reads)

    assert answer.endswith(b"ok")
    assert b"x" * 10_000 in received


@pytest.mark.parametrize("accept", [b"text/html", b"*/*"])
def test_a_body_in_chunks_above_the_limit_is_refused_and_never_ends_for_the_app(
    site: Site, accept: bytes
) -> None:
    client = sends(post(b"x" * (LIMIT_BYTES + 1), chunked=True, accept=accept))
    answer, received = converse(site, client, app=reads)

    assert answer.startswith(b"HTTP/1.1 413 Content Too Large\r\n")
    assert not received.endswith(b"0\r\n\r\n")
    body = answer.partition(b"\r\n\r\n")[2]
    if accept == b"text/html":
        assert b"up to 0.19073486328125 MiB in one request" in body
    else:
        problem = json.loads(body)
        assert (problem["code"], problem["limit_bytes"]) == ("body_too_large", LIMIT_BYTES)


def test_a_length_above_the_limit_is_refused_before_anybody_hears_of_it(site: Site) -> None:
    (answer,) = converse(site, sends(post(b"x" * (LIMIT_BYTES + 1), chunked=False)))
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_client_that_sends_on_gets_an_answer_that_came_early(site: Site) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"POST / HTTP/1.1\r\nHost: mine\r\nContent-Length: 90000\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(9):
            writer.write(b"x" * 10_000)
            await writer.drain()
        return await reader.read()

    (answer,) = converse(site, client)
    assert answer == b"method not allowed\n"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("accept", [b"text/html", b"*/*"])
def test_a_body_that_trickles_is_not_waited_for(site: Site, accept: bytes, chunked: bool) -> None:
    async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        whole = post(b"x" * LIMIT_BYTES, chunked=chunked, accept=accept)
        head, end, body = whole.partition(b"\r\n\r\n")
        writer.write(head + end)
        answer = asyncio.ensure_future(reader.read())
        while not answer.done():
            writer.write(body[:1])
            body = body[1:]
            await asyncio.wait({answer}, timeout=0.01)
        return await answer

    answer, *received = converse(site, trickles, app=reads, app_hears=not chunked, body_grace_s=0.1)

    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert len(b"".join(received)) < LIMIT_BYTES
    text = answer.partition(b"\r\n\r\n")[2]
    if accept == b"text/html":
        assert b"This came too slowly" in text
    else:
        assert json.loads(text)["code"] == "body_too_slow"


def test_only_the_time_counts_in_which_nothing_has_come() -> None:
    """Whether the app takes it quickly is not up to the client."""

    async def run() -> None:
        head = h11.Request(
            method="POST", target="/", headers=[("Host", "mine"), ("Content-Length", "300")]
        )
        upload = Upload(head, 300, grace_s=0)
        reader = asyncio.StreamReader()
        for _ in range(3):
            reader.feed_data(b"x" * 100)
            assert len(await upload.read(reader)) == 100
        with pytest.raises(UploadRefused):
            await upload.read(reader)

    asyncio.run(run())


LARGE = 20_000_000
"""More than the sockets between client, front and app hold."""
BEGUN = b"HTTP/1.1 200 OK\r\n\r\nbegun "
LARGE_HEAD = b"POST / HTTP/1.1\r\nHost: mine\r\nContent-Length: %d\r\n\r\n" % LARGE


@pytest.fixture
def roomy(site: Site) -> Site:
    site.upload_max_bytes = LARGE
    return site


async def begins(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(BEGUN)
    await writer.drain()


@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_that_has_begun_goes_on_once_the_whole_body_has_come(
    roomy: Site, chunked: bool
) -> None:
    """What stands before us may have no ear for both at once."""
    has_answer = asyncio.Event()
    end = b"x\r\n0\r\n\r\n" if chunked else b"x"

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(post(b"x" * LARGE, chunked=chunked))
        await writer.drain()
        head = await reader.readuntil(b"begun ")
        has_answer.set()
        return head + await reader.read()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        await begins(reader, writer)
        await has_answer.wait()  # reads nothing before: the body waits in the front
        received = bytearray()
        while len(received) < LARGE or not received.endswith(end):
            received += await reader.read(1 << 20)
        writer.write(b"ended")
        return b"%d" % received.count(b"x")

    answer, size = converse(roomy, client, app=app)
    assert b"begun " in answer
    assert b"ended" in answer
    assert int(size) == LARGE


def test_a_client_that_waits_for_the_answer_gets_it_before_it_has_sent_all(roomy: Site) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(LARGE_HEAD + b"first")
        await reader.readuntil(b"begun ")
        writer.write(b"x" * (LARGE - 5))
        return await reader.read()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        await begins(reader, writer)
        body = await reader.readexactly(LARGE)
        writer.write(b"ended")
        return body[:5]

    answer, first = converse(roomy, client, app=app)
    assert b"ended" in answer
    assert first == b"first"


def test_more_bodies_than_may_wait_are_refused_while_nothing_of_the_answer_is_out(
    roomy: Site,
) -> None:
    is_refused = asyncio.Event()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(LARGE_HEAD + b"x" * LARGE)
        line = await reader.readuntil(b"\r\n")
        is_refused.set()
        return line

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        await begins(reader, writer)
        await is_refused.wait()  # reads nothing
        return b""

    answer, _ = converse(roomy, client, app=app, waiting_max_bytes=200_000)
    assert answer == b"HTTP/1.1 503 Service Unavailable\r\n"
