"""The front between a client and an app that take turns, stop halfway or go away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from agent.serving.front import Front
from agent.serving.site import Serving, Site, Slot
from agent.serving.static_files import Folder

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]

DEADLINE_S = 20.0
HEAD = b"GET / HTTP/1.1\r\nHost: mine\r\n\r\n"
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: mine\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
FILE = b"x" * 200_000


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "large.txt").write_bytes(FILE)
    site = Site(slot=Slot(folder=str(tmp_path), port=1), libraries=str(tmp_path))
    site.answer_to("mine")
    site.show(Serving.FILES, site.slot, Folder(root=site.slot.folder, files=["large.txt"]))
    return site


def converse(
    site: Site, *clients: Talk, app: Talk | None = None, app_hears: bool = True, **bounds: Any
) -> list[bytes]:
    """What each client returns, then what the app returns. The clients begin in their order.

    With `app_hears=False` nothing may reach the app, and it returns nothing. An exception that
    nobody catches in the front fails the test.
    """

    async def run() -> list[bytes]:
        uncaught: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: uncaught.append(context)
        )
        async with asyncio.timeout(DEADLINE_S), contextlib.AsyncExitStack() as stack:
            ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                if app is not None:
                    ended.set_result(await app(reader, writer))
                    writer.close()

            if app is not None:
                upstream = await asyncio.start_server(serve, "127.0.0.1", 0)
                stack.callback(upstream.close)
                site.slot = replace(site.slot, port=upstream.sockets[0].getsockname()[1])
                site.serving = Serving.PROCESS
            front = await Front(site, **bounds).listen("127.0.0.1", 0)
            stack.callback(front.close)
            port = front.sockets[0].getsockname()[1]
            talks = []
            for client in clients:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                stack.callback(writer.close)
                talks.append(asyncio.create_task(client(reader, writer)))  # type: ignore[arg-type]  # any awaitable
            said = [await talk for talk in talks]
            if app is not None and app_hears:
                said.append(await ended)
            else:
                assert not ended.done()
        assert not uncaught
        return said

    return asyncio.run(run())


def sends(data: bytes, *, ends: bool = False) -> Talk:
    """A client that sends this, and reads until the front hangs up."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(data)
        if ends:
            writer.write_eof()
        return await reader.read()

    return talk


async def goes_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """A client whose connection is reset in the middle of its head."""
    writer.write(HEAD[:10])
    await writer.drain()
    # An interval of zero: the connection is reset when it is closed.
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    writer.transport.abort()
    return b""


def test_a_file_is_sent_whole_to_a_get_and_not_at_all_to_a_head(site: Site) -> None:
    target = b"/large.txt HTTP/1.1\r\nHost: mine\r\n\r\n"
    got, head, refusal = converse(
        site, sends(b"GET " + target), sends(b"HEAD " + target), sends(b"POST " + target)
    )

    assert got.partition(b"\r\n\r\n")[2] == FILE
    assert head.endswith(b"\r\n\r\n")
    assert b"Content-Length: 200000" in head
    assert refusal.endswith(b"method not allowed\n")


def test_a_client_that_says_nothing_or_goes_away_is_no_trouble(site: Site) -> None:
    silent, _, ordinary = converse(site, sends(b"", ends=True), goes_away, sends(HEAD))

    assert silent == b""
    assert ordinary.startswith(b"HTTP/1.1 404 ")


def test_a_head_that_never_ends_is_not_waited_for(site: Site) -> None:
    assert converse(site, sends(HEAD[:20]), head_timeout_s=0.05) == [b""]


def test_one_connection_too_many_is_told_to_come_back(site: Site) -> None:
    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(HEAD[:20])
        await full.wait()
        writer.write(HEAD[20:])
        return await reader.read()

    async def comes_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(HEAD)
        answer = await reader.read()
        full.set()
        return answer

    full = asyncio.Event()
    first, late = converse(site, waits, comes_late, connections_max=1)

    assert first.startswith(b"HTTP/1.1 404 ")
    assert late.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in late


def test_an_app_that_takes_no_connection_is_starting(site: Site) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nobody listens
        site.slot = replace(site.slot, port=unused.getsockname()[1])
        site.serving = Serving.PROCESS
        (answer,) = converse(site, sends(HEAD))

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in answer


def test_a_body_in_parts_arrives_as_it_was_sent(site: Site) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await reader.read()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        headers = b"Host: mine\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n"
        writer.write(b"POST / HTTP/1.1\r\n" + headers)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"abc")
        await writer.drain()
        writer.write(b"defGET /second HTTP/1.1\r\nHost: other\r\n\r\n")
        writer.write_eof()
        return await reader.read()

    assert converse(site, client, app=app)[1] == b"abcdef"


def test_both_ends_of_a_websocket_hear_each_other_until_one_hangs_up(site: Site) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        writer.write(await reader.readexactly(5))
        return await reader.read()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(UPGRADE + b"early")
        await reader.readuntil(b"early")
        writer.write(b"later")
        writer.close()
        return b""

    assert converse(site, client, app=app)[1] == b"later"


def test_nothing_reaches_an_app_that_refused_a_websocket(site: Site) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        return await reader.read()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(UPGRADE + b"early")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET /second HTTP/1.1\r\nHost: other\r\n\r\n")
        writer.write_eof()
        return b""

    assert converse(site, client, app=app)[1] == b""


@pytest.mark.parametrize("says", [b"", b"HTTP"])
def test_an_app_that_hangs_up_on_a_websocket_is_not_answered_for_twice(
    site: Site, says: bytes
) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(says)
        return await reader.readuntil(b"\r\n\r\n")

    answer, _ = converse(site, sends(UPGRADE), app=app)

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_an_app_is_left_when_its_client_is_gone(site: Site) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        return await reader.read()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(HEAD)
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return b""

    assert converse(site, client, app=app) == [b"", b""]
