"""The connection to an app: fair to others, and true to what was answered before it broke."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from agent.serving.upstream import AppConnection

DEADLINE_S = 20.0


def test_an_app_that_always_has_more_leaves_all_others_their_turn() -> None:
    async def run() -> list[str]:
        ours, apps = socket.socketpair()
        ours.setblocking(False)
        apps.sendall(b"x" * 1000)
        story: list[str] = []

        async def other() -> None:
            story.append("another visitor")

        task = asyncio.create_task(other())
        connection = AppConnection(ours)
        for _ in range(2):
            assert await connection.read(100) == b"x" * 100
            story.append("piece")
        await task
        connection.close()
        apps.close()
        return story

    assert asyncio.run(run()) == ["another visitor", "piece", "piece"]


async def write_for_ever(connection: AppConnection) -> None:
    while True:
        await connection.write(b"x" * 100_000)


def test_an_answer_that_came_before_the_app_hung_up_can_be_read() -> None:
    async def run() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connection = await AppConnection.open(listener.getsockname()[1], limit_s=DEADLINE_S)
            app, _ = listener.accept()
        app.sendall(b"too much")
        app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        app.close()  # with a reset
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(ConnectionError):
                await write_for_ever(connection)
            answer = await connection.read(100)
        connection.close()
        return answer

    assert asyncio.run(run()) == b"too much"


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            asyncio.run(AppConnection.open(unused.getsockname()[1], limit_s=DEADLINE_S))
