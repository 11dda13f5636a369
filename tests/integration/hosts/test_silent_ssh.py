"""Hosts whose SSH servers accept connections and never answer keep no other host from its link."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from orchestrator.adapters.ssh.forwarding import LinkTarget
from orchestrator.adapters.ssh.link import Link
from orchestrator.domain.pool.host_fields import HostAddress
from tests.integration.hosts.ssh_server import shell_host

_DEADLINE_S = 30.0
_SILENT = 100  # each holds its attempt for ten seconds, and ten links connect at once


@contextlib.asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """The port of a server that accepts connections and never answers."""
    closing = asyncio.Event()

    async def keep(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closing.wait()
        writer.close()

    async with await asyncio.start_server(keep, "127.0.0.1", 0) as server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            closing.set()


def silent_target(target: LinkTarget, number: int, port: int) -> LinkTarget:
    address = HostAddress(user="root", host="127.0.0.1", port=port)
    folder = target.local_socket.parent / f"silent-{number}"
    return replace(target, address=address, local_socket=folder / "docker.sock")


def test_a_host_is_linked_while_a_hundred_others_never_answer(tmp_path: Path) -> None:
    async def run() -> None:
        gate = asyncio.Semaphore(10)
        up = asyncio.Event()
        async with shell_host(tmp_path, "true") as host, silent_server() as port:
            silent = [
                Link(silent_target(host.target, number, port), gate, lambda: None)
                for number in range(_SILENT)
            ]
            link = Link(host.target, gate, lambda: up.set() if link.view.up else None)
            tasks = [asyncio.create_task(each.run_forever()) for each in (*silent, link)]
            try:
                async with asyncio.timeout(_DEADLINE_S):
                    await up.wait()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
