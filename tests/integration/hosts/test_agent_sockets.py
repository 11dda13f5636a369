"""Each sandbox of a host over SSH has a socket of its own. A real SSH server, and a real link."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.adapters.ssh.link import Link
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool import agent_sockets
from tests.integration.hosts.ssh_server import ShellHost, shell_host

_DEADLINE_S = 60

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(kw_only=True)
class Linked:
    """A link that is up, and sandboxes on its host."""

    host: ShellHost
    link: Link
    changed: asyncio.Event
    streams: list[Stream] = field(default_factory=list)

    def folder(self, sandbox_id: SandboxId) -> Path:
        return Path(agent_sockets.folder_of(self.host.target.agent_folder, sandbox_id))

    async def connect(self, sandbox_id: SandboxId) -> Stream:
        """Connect as an agent does. Raises OSError."""
        path = self.folder(sandbox_id) / agent_sockets.SOCKET
        stream = await asyncio.open_unix_connection(path)
        self.streams.append(stream)
        return stream

    async def is_served(self, sandbox_id: SandboxId) -> bool:
        """Whether a new connection of this sandbox gets to the socket that it has with us."""
        try:
            reader, _ = await self.connect(sandbox_id)
            return await reader.read(100) == sandbox_id.encode()
        except OSError:
            return False

    async def wait_for(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(_DEADLINE_S):
            while not await condition():
                await asyncio.sleep(0.02)

    async def wait_until_up(self, connects: int) -> None:
        async with asyncio.timeout(_DEADLINE_S):
            while not (self.link.view.up and self.link.view.connects >= connects):
                await self.changed.wait()
                self.changed.clear()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, because of the limit for the path of a socket."""
    with tempfile.TemporaryDirectory(prefix="spawn-") as name:
        yield Path(name)


@asynccontextmanager
async def linked(folder: Path) -> AsyncIterator[Linked]:
    async with shell_host(folder, "") as host:
        changed = asyncio.Event()
        link = Link(host.target, asyncio.Semaphore(1), changed.set)
        running = asyncio.create_task(link.run_forever())
        world = Linked(host=host, link=link, changed=changed)
        try:
            await world.wait_until_up(1)
            yield world
        finally:
            for _, writer in world.streams:
                writer.close()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def upstream(world: Linked, *sandbox_ids: SandboxId) -> AsyncIterator[None]:
    """The sockets of these sandboxes with us. They greet by the sandbox's id, and hold on."""
    async with contextlib.AsyncExitStack() as stack:
        for sandbox_id in sandbox_ids:

            async def greet(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                sandbox_id: SandboxId = sandbox_id,
            ) -> None:
                writer.write(sandbox_id.encode())
                with contextlib.suppress(OSError):
                    await reader.read()
                writer.close()

            local = str(world.host.target.local_agent_folder)
            path = Path(agent_sockets.folder_of(local, sandbox_id)) / agent_sockets.SOCKET
            path.parent.mkdir(parents=True)
            stack.enter_context(contextlib.closing(await asyncio.start_unix_server(greet, path)))
        yield


def run(folder: Path, story: Callable[[Linked], Awaitable[None]]) -> None:
    async def play() -> None:
        async with linked(folder) as world:
            await story(world)

    asyncio.run(play())


FIRST, SECOND = ids.new_sandbox_id(), ids.new_sandbox_id()


def test_a_connection_goes_to_the_socket_of_the_same_sandbox(folder: Path) -> None:
    async def story(world: Linked) -> None:
        async with upstream(world, FIRST, SECOND):
            for sandbox_id in (FIRST, SECOND):
                await world.link.offer_socket(sandbox_id)
                socket = world.folder(sandbox_id) / agent_sockets.SOCKET
                assert socket.stat().st_mode & 0o777 == 0o666
                assert await world.is_served(sandbox_id)
            assert world.folder(FIRST).parent.stat().st_mode & 0o777 == 0o711

    run(folder, story)


def test_a_sandbox_that_asks_for_too_much_loses_its_socket_for_a_while(folder: Path) -> None:
    async def story(world: Linked) -> None:
        async with upstream(world, FIRST, SECOND):
            world.link.follow_sandboxes([FIRST, SECOND], [])
            await world.wait_for(lambda: world.is_served(FIRST))
            await world.wait_for(lambda: world.is_served(SECOND))

            async def is_turned_away() -> bool:
                try:
                    await world.connect(FIRST)
                except ConnectionRefusedError:
                    return True
                return False

            await world.wait_for(is_turned_away)
            assert await world.is_served(SECOND)
            assert world.link.refusals.keys() == {"connections"}
            assert world.link.refusals["connections"] >= 100
            assert world.link.channels <= agent_sockets.CONNECTIONS_MAX + 3
            while world.streams:
                world.streams.pop()[1].close()

            async def is_served_again() -> bool:
                world.link.retry_sockets()
                return await world.is_served(FIRST)

            assert world.link.sockets.is_behind
            await world.wait_for(is_served_again)
            assert not world.link.sockets.is_behind, "nothing is left to try"

    run(folder, story)


def test_when_streams_get_scarce_each_sandbox_gets_few(folder: Path) -> None:
    greedy = [ids.new_sandbox_id() for _ in range(16)]

    async def story(world: Linked) -> None:
        async with upstream(world, FIRST, *greedy):
            world.link.follow_sandboxes([FIRST, *greedy], [])
            for sandbox_id in [FIRST, *greedy]:
                await world.wait_for(lambda sandbox_id=sandbox_id: world.is_served(sandbox_id))
            for sandbox_id in greedy:
                for _ in range(agent_sockets.CONNECTIONS_MAX):
                    await world.is_served(sandbox_id)
            assert 500 <= world.link.channels < 510
            served = [await world.is_served(FIRST) for _ in range(5)]
            assert served == [True, True, True, False, False]  # it has one already
            assert world.link.refusals["connections"] >= 2

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        run(folder, story)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_sandboxes_from_before_each_had_a_socket_go_on_over_the_shared_one(folder: Path) -> None:
    async def story(world: Linked) -> None:
        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"shared")
            writer.close()

        target = world.host.target
        target.local_agent_folder.mkdir()
        path = target.local_agent_folder / agent_sockets.SOCKET
        async with await asyncio.start_unix_server(greet, path):
            shared = Path(target.agent_folder) / agent_sockets.SOCKET
            reader, writer = await asyncio.open_unix_connection(shared)
            assert await reader.read() == b"shared"
            writer.close()

    run(folder, story)


def test_a_new_connection_gets_all_sockets_again(folder: Path) -> None:
    async def story(world: Linked) -> None:
        sandbox_ids = [ids.new_sandbox_id() for _ in range(10)]
        async with upstream(world, *sandbox_ids):
            world.link.follow_sandboxes(sandbox_ids, [])
            for sandbox_id in sandbox_ids:
                await world.wait_for(lambda sandbox_id=sandbox_id: world.is_served(sandbox_id))
            leftover = world.folder(ids.new_sandbox_id())
            leftover.mkdir()
            world.host.drop_connections()
            await world.wait_until_up(2)
            for sandbox_id in sandbox_ids:
                await world.wait_for(lambda sandbox_id=sandbox_id: world.is_served(sandbox_id))

            async def is_removed() -> bool:
                return not leftover.exists()

            await world.wait_for(is_removed)

    run(folder, story)


def test_the_folder_of_a_sandbox_that_is_gone_is_removed(folder: Path) -> None:
    async def story(world: Linked) -> None:
        await world.link.offer_socket(FIRST)
        await world.link.offer_socket(SECOND)
        await world.link.withdraw_socket(FIRST)
        assert not world.folder(FIRST).exists()
        world.link.follow_sandboxes([], [SECOND])

        async def is_removed() -> bool:
            return not world.folder(SECOND).exists()

        await world.wait_for(is_removed)

    run(folder, story)


def test_without_a_connection_no_sandbox_is_started(folder: Path) -> None:
    async def story() -> None:
        async with shell_host(folder, "") as host:
            link = Link(host.target, asyncio.Semaphore(1), lambda: None)
            with pytest.raises(errors.LinkDown):
                await link.offer_socket(FIRST)

    asyncio.run(story())
