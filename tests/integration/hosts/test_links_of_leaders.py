"""A link of a leader that was stopped takes nothing from the leader that has followed it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.ssh.link import Link
from orchestrator.domain import errors, ids
from orchestrator.domain.pool import agent_sockets
from tests.fakes.terms import TermThatEnds
from tests.integration.hosts.ssh_server import ShellHost, shell_host

DEADLINE_S = 30


async def until(condition: Callable[[], bool], description: str) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {description}") from None


def link_of(host: ShellHost, term: TermThatEnds) -> Link:
    return Link(replace(host.target, check_term=term.check), asyncio.Semaphore(1), lambda: None)


async def can_connect(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


def test_an_earlier_leaders_end_leaves_the_socket_of_the_later_one(tmp_path: Path) -> None:
    async def scene() -> None:
        async with shell_host(tmp_path, "") as host:
            earlier, later = link_of(host, TermThatEnds(1)), link_of(host, TermThatEnds(2))
            first = asyncio.create_task(earlier.run_forever())
            await until(host.target.local_socket.exists, "the first link's socket")
            inode = host.target.local_socket.stat().st_ino
            second = asyncio.create_task(later.run_forever())
            await until(
                lambda: (
                    host.target.local_socket.exists()
                    and host.target.local_socket.stat().st_ino != inode
                ),
                "the second link's socket",
            )
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            assert await can_connect(host.target.local_socket)
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
            assert not host.target.local_socket.exists()

    asyncio.run(scene())


def test_a_leader_whose_term_is_over_makes_no_connection_and_takes_no_socket(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        async with shell_host(tmp_path, "") as host:
            term = TermThatEnds(1)
            link = link_of(host, term)
            running = asyncio.create_task(link.run_forever())
            await until(lambda: link.view.up, "the link")
            term.is_over = True
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            again = link_of(host, term)
            result = (await asyncio.gather(again.run_forever(), return_exceptions=True))[0]
            assert "another daemon may lead" in str(result)
            assert not host.target.local_socket.exists()

    asyncio.run(scene())


def test_a_leader_whose_term_is_over_changes_no_agent_socket(tmp_path: Path) -> None:
    async def scene() -> None:
        async with shell_host(tmp_path, "") as host:
            term = TermThatEnds(1)
            link = link_of(host, term)
            running = asyncio.create_task(link.run_forever())
            await until(lambda: link.view.up, "the link")
            kept, new = ids.new_sandbox_id(), ids.new_sandbox_id()
            await link.offer_socket(kept)
            term.is_over = True
            with pytest.raises(errors.TermOver):
                await link.offer_socket(new)
            with pytest.raises(errors.TermOver):
                await link.withdraw_socket(kept)
            folder = Path(host.target.agent_folder) / agent_sockets.SANDBOXES
            assert [path.name for path in folder.iterdir()] == [kept]
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scene())
