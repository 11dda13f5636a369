"""Asking an app that isn't shown yet, over real sockets."""

from __future__ import annotations

import asyncio

import pytest
from agent.apps import probe

from orchestrator.contract.heads import HEAD_MAX_BYTES

START = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: "
END = b"\r\n\r\n"
DEADLINE_S = 20.0


@pytest.mark.parametrize("excess_bytes", [0, 1])
def test_the_check_takes_heads_as_long_as_visitors_get_them(excess_bytes: int) -> None:
    filling = b"x" * (HEAD_MAX_BYTES + excess_bytes - len(START) - len(END))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(END)
        writer.write(START + filling + END + b"ok")
        writer.close()

    async def run() -> probe.Page:
        async with (
            asyncio.timeout(DEADLINE_S),
            await asyncio.start_server(serve, "127.0.0.1", 0) as server,
        ):
            port = server.sockets[0].getsockname()[1]
            return await probe._from_process(port, [("Accept", "*/*")], probe._Reading("/", 100))

    page = asyncio.run(run())
    if excess_bytes:
        assert "more than 64 KiB" in page.problem
    else:
        assert (page.status, page.body) == (200, b"ok")
