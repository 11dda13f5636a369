"""Visitors of an app whose queue of connections is full: they wait in the front, in their order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from agent.serving.front import Front
from agent.serving.site import Serving, Site, Slot, Trial
from agent.serving.static_files import Folder
from agent.serving.upstream import AppConnection, QueueFull

from orchestrator.contract.front_pages import TRIAL_HEADER

DEADLINE_S = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


class BusyApp:
    """Listens with room for one connection, and takes none by itself."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._listener.setblocking(False)
        self._first: socket.socket | None = None
        self.port: int = self._listener.getsockname()[1]

    def fill(self) -> None:
        """Have somebody wait, so that the queue is full."""
        self._first = socket.create_connection(("127.0.0.1", self.port))

    async def answer_first(self) -> None:
        """Take who has made the queue full. From now on it has room."""
        taken, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        taken.close()
        assert self._first is not None
        self._first.close()

    async def answer(self) -> bytes:
        """Take the next visitor, and answer. Return the request's first line."""
        loop = asyncio.get_running_loop()
        taken, _ = await loop.sock_accept(self._listener)
        with taken:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = await loop.sock_recv(taken, 1000)
                assert piece, "a connection without a request"
                head += piece
            await loop.sock_sendall(taken, OK)
        return head.partition(b"\r\n")[0]

    def close(self) -> None:
        self._listener.close()
        if self._first is not None:
            self._first.close()


@pytest.fixture
def busy() -> Iterator[BusyApp]:
    app = BusyApp()
    app.fill()
    yield app
    app.close()


@pytest.fixture
def site(tmp_path: Path, busy: BusyApp) -> Site:
    site = Site(slot=Slot(folder=str(tmp_path), port=busy.port))
    site.show(Serving.PROCESS, site.slot)
    site.answer_to("mine")
    return site


@contextlib.asynccontextmanager
async def front_of(site: Site) -> AsyncIterator[int]:
    """The port of its front."""
    async with asyncio.timeout(DEADLINE_S):
        server = await Front(site).listen("127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


async def ask(port: int, line: bytes, *headers: bytes) -> bytes:
    """The whole answer to a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\r\n".join([line + b" HTTP/1.1", b"Host: mine", *headers, b"", b""]))
    try:
        return await reader.read()
    finally:
        writer.close()


async def until_asked(lock: asyncio.Lock) -> None:
    """Until a visitor tries to reach the app."""
    while not lock.locked():
        await asyncio.sleep(0)


def test_who_waits_for_room_is_not_overtaken_by_who_comes_when_there_is_some(
    site: Site, busy: BusyApp
) -> None:
    async def run() -> list[bytes]:
        async with front_of(site) as port:
            first = asyncio.create_task(ask(port, b"GET /first"))
            await until_asked(site.entrance)
            await busy.answer_first()
            second = asyncio.create_task(ask(port, b"GET /second"))
            lines = [await busy.answer(), await busy.answer()]
            assert await first == await second == OK
        return lines

    assert asyncio.run(run()) == [b"GET /first HTTP/1.1", b"GET /second HTTP/1.1"]


def test_what_an_app_has_no_room_for_does_not_hold_up_a_change_and_goes_to_the_next_version(
    site: Site, busy: BusyApp, tmp_path: Path
) -> None:
    async def run() -> tuple[bytes, bytes]:
        following = BusyApp()
        async with front_of(site) as port:
            asked = asyncio.create_task(ask(port, b"POST /order", b"Content-Length: 0"))
            await until_asked(site.entrance)
            async with site.quiet(write_limit_s=DEADLINE_S):
                site.show(Serving.PROCESS, Slot(folder=str(tmp_path / "next"), port=following.port))
            line = await following.answer()
            answer = await asked
        following.close()
        return line, answer

    assert asyncio.run(run()) == (b"POST /order HTTP/1.1", OK)


def test_a_version_that_is_tried_is_reached_while_the_one_that_is_shown_has_no_room(
    site: Site, busy: BusyApp, tmp_path: Path
) -> None:
    async def run() -> bytes:
        tried = BusyApp()
        slot = Slot(folder=str(tmp_path / "next"), port=tried.port)
        site.trial = Trial("secret", Serving.PROCESS, slot, Folder(root=slot.folder, files=()))
        async with front_of(site) as port:
            waiting = asyncio.create_task(ask(port, b"GET /shown"))
            await until_asked(site.entrance)
            header = f"{TRIAL_HEADER}: secret".encode()
            asked = asyncio.create_task(ask(port, b"GET /tried", header))
            line = await tried.answer()
            assert await asked == OK
            waiting.cancel()
        tried.close()
        return line

    assert asyncio.run(run()) == b"GET /tried HTTP/1.1"


def test_a_full_queue_is_told_from_one_with_room_however_short_the_look(
    busy: BusyApp,
) -> None:
    async def run() -> None:
        with pytest.raises(QueueFull):
            await AppConnection.open(busy.port, limit_s=0.01)
        await busy.answer_first()
        connection = await AppConnection.open(busy.port, limit_s=0)
        connection.close()

    asyncio.run(run())
