"""/ready tells what is wrong, also when that comes in the middle of its checks; and asking for it
takes nothing from others."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio.to_thread
import httpx2
import pytest

from orchestrator import config
from orchestrator.entrypoints.api import public_app
from orchestrator.entrypoints.api.context import Context
from tests.fakes.hub import deaf_hub
from tests.fakes.samples import NOW
from tests.unit.entrypoints.api.conftest import Api
from tests.unit.services.world import World

_ASKERS = 100


def test_a_database_that_fails_in_some_queries_only_is_named_by_ready(
    visitor: Api, tmp_path: Path
) -> None:
    """As on a disk that fails: some tables are still in memory."""
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        connection.execute("ALTER TABLE hosts RENAME TO lost")
    status, answer = visitor("GET", "/ready")
    assert (status, answer["ready"]) == (503, False)
    assert not answer["checks"]["database"]["ok"]
    assert "hosts" in answer["checks"]["database"]["detail"]


@pytest.mark.parametrize("path", ["/health", "/metrics/process"])
def test_a_sign_of_life_needs_no_thread(world: World, tmp_path: Path, path: str) -> None:
    async def test() -> int:
        limiter = anyio.to_thread.current_default_thread_limiter()
        for _ in range(int(limiter.total_tokens)):
            limiter.acquire_on_behalf_of_nowait(object())
        async with client_of(world, tmp_path, 1) as client, asyncio.timeout(20):
            return (await client.get(path)).status_code

    assert asyncio.run(test()) == 200


def test_many_who_ask_whether_we_are_ready_make_one_check(world: World, tmp_path: Path) -> None:
    """The check asks the proxy. Each of them would take a thread, and a request of our own."""

    async def test(proxy: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with client_of(world, tmp_path, proxy.getsockname()[1]) as client:
            asking = [asyncio.create_task(client.get("/ready")) for _ in range(_ASKERS)]
            check, _ = await loop.sock_accept(proxy)
            for _ in range(10):
                assert (await client.get("/health")).status_code == 200
            check.close()
            assert len({(await answer).content for answer in asking}) == 1
        with pytest.raises(BlockingIOError):
            proxy.accept()

    with closing(socket.create_server(("127.0.0.1", 0), backlog=_ASKERS)) as proxy:
        proxy.setblocking(False)
        asyncio.run(test(proxy))


def client_of(world: World, folder: Path, control_port: int) -> httpx2.AsyncClient:
    settings = config.make(state_dir=folder, control_port=control_port)
    context = Context(
        settings=settings, deps=world.deps, hub=deaf_hub(), started_at=NOW, answers_kept_s=60.0
    )
    transport = httpx2.ASGITransport(public_app.build(context))
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost")
