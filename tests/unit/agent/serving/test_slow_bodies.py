"""Small bodies that come slowly: the app hears of a request only when its body is there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from agent.serving.body import COLLECTED_BYTES
from agent.serving.site import Site, Slot

from tests.unit.agent.serving.test_conversations import HEAD, Talk, converse, sends

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = b"POST / HTTP/1.1\r\nHost: mine\r\n"
SIZED = POST + b"Content-Length: 4\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


class HeardSite(Site):
    """Says when the head of a request has come."""

    def __init__(self, folder: Path) -> None:
        super().__init__(slot=Slot(folder=str(folder), port=1))
        self.answer_to("mine")
        self.is_asked = asyncio.Event()

    def is_ours(self, host: str) -> bool:
        self.is_asked.set()
        return super().is_ours(host)


@pytest.fixture
def site(tmp_path: Path) -> HeardSite:
    return HeardSite(tmp_path)


async def answers(reader: Reader, writer: Writer) -> bytes:
    """An app that reads once, as much as there is, answers and hangs up."""
    received = await reader.read(1 << 20)
    writer.write(OK)
    return received


def trickles(*pieces: bytes) -> Talk:
    """A client that sends one piece after the other, each by itself."""

    async def talk(reader: Reader, writer: Writer) -> bytes:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            for _ in range(20):  # the front reads it meanwhile
                await asyncio.sleep(0)
        return await reader.read()

    return talk


@pytest.mark.parametrize("begun", [SIZED, SIZED + b"abc"])
def test_a_visitor_whose_body_is_on_its_way_holds_up_nobody(site: HeardSite, begun: bytes) -> None:
    other_is_served = asyncio.Event()

    async def slow(_: Reader, writer: Writer) -> bytes:
        writer.write(begun)
        await other_is_served.wait()
        return b""

    async def other(reader: Reader, writer: Writer) -> bytes:
        await site.is_asked.wait()
        writer.write(HEAD)
        answer = await reader.read()
        other_is_served.set()
        return answer

    _, answer, received = converse(site, slow, other, app=answers)
    assert answer.endswith(b"ok")
    assert received.startswith(b"GET ")


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ((SIZED, b"a", b"bc", b"d"), b"abcd"),
        ((SIZED + b"abcd",), b"abcd"),
        ((CHUNKED, b"1\r", b"\na\r\n", b"3\r\nbc", b"d\r\n0\r\n", b"\r\n"), b"1\r\na\r\n"),
    ],
)
def test_a_small_body_reaches_the_app_together_with_its_head(
    site: Site, pieces: tuple[bytes, ...], body: bytes
) -> None:
    answer, received = converse(site, trickles(*pieces), app=answers)
    assert answer.endswith(b"ok")
    head, _, rest = received.partition(b"\r\n\r\n")
    assert head.startswith(b"POST ")
    assert rest.startswith(body)
    assert received.endswith(b"abcd" if pieces[0].startswith(SIZED) else b"0\r\n\r\n")


@pytest.mark.parametrize(
    "pieces",
    [
        (SIZED + b"abc",),
        (CHUNKED + b"3\r\nab",),
        (CHUNKED, b"what?\r\n"),
    ],
)
def test_the_app_never_hears_of_a_body_that_breaks_off_or_is_none(
    site: Site, pieces: tuple[bytes, ...]
) -> None:
    client = sends(b"".join(pieces), ends=True)
    (answer,) = converse(site, client, app=answers, app_hears=False)
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_small_body_that_takes_too_long_is_refused_before_the_app_hears_of_it(
    site: Site,
) -> None:
    client = sends(SIZED + b"abc")
    (answer,) = converse(site, client, app=answers, app_hears=False, body_grace_s=0.05)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_bodies_that_wait_for_their_rest_have_a_limit_together_and_leave_nothing(
    site: Site,
) -> None:
    async def one_after_the_other(reader: Reader, writer: Writer) -> bytes:
        writer.write(SIZED + b"abcd")
        return await reader.read()

    (refused,) = converse(
        site, sends(SIZED + b"abc"), app=answers, app_hears=False, waiting_max_bytes=2
    )
    assert refused.startswith(b"HTTP/1.1 503 ")
    turns = [sends(SIZED + b"ab", ends=True) for _ in range(3)]
    *broken, answer, _ = converse(
        site, *turns, one_after_the_other, app=answers, waiting_max_bytes=10
    )
    assert {status[:12] for status in broken} == {b"HTTP/1.1 400"}
    assert answer.endswith(b"ok")


def test_a_conversation_in_chunks_goes_on_although_the_body_has_no_end(site: Site) -> None:
    async def app(reader: Reader, writer: Writer) -> bytes:
        await reader.readuntil(b"first\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nbegun ")
        return await reader.readuntil(b"0\r\n\r\n")

    async def client(reader: Reader, writer: Writer) -> bytes:
        writer.write(CHUNKED + b"5\r\nfirst\r\n")
        answer = await reader.readuntil(b"begun ")
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")
        return answer + await reader.read()

    answer, received = converse(site, client, app=app)
    assert b"begun " in answer
    assert received == b"6\r\nsecond\r\n0\r\n\r\n"


@pytest.mark.parametrize("size", [COLLECTED_BYTES - 1, COLLECTED_BYTES, COLLECTED_BYTES + 1])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_around_the_limit_arrives_whole(site: Site, size: int, chunked: bool) -> None:
    async def app(reader: Reader, writer: Writer) -> bytes:
        await reader.readuntil(b"\r\n\r\n")
        body = b""
        while body.count(b"x") < size or (chunked and not body.endswith(b"0\r\n\r\n")):
            body += await reader.read(1 << 20)
        writer.write(OK)
        return b"%d" % body.count(b"x")

    body = b"x" * size
    sized = POST + b"Content-Length: %d\r\n\r\n" % size + body
    in_chunks = CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
    answer, received = converse(site, sends(in_chunks if chunked else sized), app=app)
    assert answer.endswith(b"ok")
    assert int(received) == size


def test_of_a_large_body_the_app_hears_at_once(site: Site) -> None:
    async def app(reader: Reader, writer: Writer) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        return head

    large = POST + b"Content-Length: %d\r\n\r\n" % (COLLECTED_BYTES + 1)
    answer, _ = converse(site, sends(large), app=app)
    assert answer.endswith(b"ok")
