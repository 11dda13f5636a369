"""The streams from our processes to a host's Docker. Link (link.py) owns a Forwarder.

Our processes connect to a local socket. It is bound once and outlives each SSH connection: every
new stream goes over whichever connection is current. agent_sockets.py forwards the other way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import asyncssh

from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.slim import structlog

DOCKER_SOCKET = "/var/run/docker.sock"
_CHUNK_BYTES = 64 * 1024

log = structlog.get_logger()


class Writer(Protocol):
    """What asyncio's and asyncssh's stream writers have in common."""

    def write(self, data: bytes) -> Any: ...
    async def drain(self) -> Any: ...
    def write_eof(self) -> Any: ...
    def can_write_eof(self) -> bool: ...
    def close(self) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class LinkTarget:
    """The host that a link leads to, and the sockets that it connects."""

    name: str  # of the host, for logs
    address: HostAddress
    pinned: str  # the host key's line
    key: Path  # our private key
    local_socket: Path  # on this machine, leads to the host's Docker: 0600 in a folder of mode 0700
    local_agent_folder: Path  # on this machine: where our agents' process has its sockets
    agent_folder: str  # on the host: where agents look for theirs
    # Called before the link changes anything; raises errors.TermOver if we must not act any more.
    check_term: Callable[[], None] = lambda: None


@dataclass(eq=False, kw_only=True)
class Carrier:
    """One SSH connection, and what it carries at the moment."""

    connection: asyncssh.SSHClientConnection
    is_root: bool  # whether we log in as root there
    in_use: int = 0  # streams and commands that have not ended
    retired: bool = False
    # Local connections to Docker on which each request is answered. Clients keep these open and
    # use them for their next call.
    idle_writers: set[asyncio.StreamWriter] = field(default_factory=set)
    # The agent sockets that this connection has bound. `binding` is held while that changes.
    listeners: dict[SandboxId, asyncssh.SSHListener] = field(default_factory=dict)
    binding: asyncio.Lock = field(default_factory=asyncio.Lock)
    syncing: asyncio.Task[None] | None = None
    present: Sequence[SandboxId] = ()  # whose folders the host had when we connected

    def retire(self) -> None:
        """Close the connection once the last stream on it has ended.

        Close idle local connections at once: otherwise a client's next call goes out over this
        connection, and may never be answered.
        """
        self.retired = True
        for writer in self.idle_writers:
            writer.close()
        self.close_if_unused()

    def close_if_unused(self) -> None:
        if self.retired and self.in_use == 0:
            self.connection.close()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep a retired connection open until the end of the block."""
        self.in_use += 1
        try:
            yield
        finally:
            self.in_use -= 1
            self.close_if_unused()


class Forwarder:
    """The streams of one link. New ones go over `carrier`; retired carriers finish theirs."""

    def __init__(self, target: LinkTarget) -> None:
        self.carrier: Carrier | None = None  # None while there is no connection
        self.channels = 0  # streams to Docker that are open
        self._socket_inode = 0
        self._target = target
        self._retired: set[Carrier] = set()

    async def listen(self) -> asyncio.AbstractServer:
        """Bind the local socket that leads to the host's Docker."""
        path = self._target.local_socket
        self._target.check_term()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        path.unlink(missing_ok=True)  # a killed process leaves its socket behind
        server = await asyncio.start_unix_server(self._forward_to_docker, path, backlog=256)
        path.chmod(0o600)
        self._socket_inode = path.stat().st_ino
        return server

    def unlink_socket(self) -> None:
        """Remove the local socket, unless another process has put its own there meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            if self._target.local_socket.stat().st_ino == self._socket_inode:
                self._target.local_socket.unlink()

    def retire(self, carrier: Carrier) -> None:
        """Give this carrier no new streams, but let those that it has finish."""
        self._retired = {other for other in self._retired if not other.connection.is_closed()}
        self._retired.add(carrier)
        carrier.retire()

    def abort(self) -> None:
        """Abort all connections, and so all streams."""
        for carrier in (self.carrier, *self._retired):
            if carrier is not None:
                carrier.connection.abort()
        self.carrier = None

    async def _forward_to_docker(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        carrier = self.carrier
        if carrier is None:
            writer.close()
            return
        with carrier.hold(), self._count_channel():
            try:
                remote = await carrier.connection.open_unix_connection(DOCKER_SOCKET, encoding=None)
            except (OSError, asyncssh.Error) as error:
                log.info("docker_unreachable", host=self._target.name, error=str(error))
                writer.close()
                return
            try:
                await splice(
                    (reader, writer),
                    remote,
                    on_request=lambda: carrier.idle_writers.discard(writer),
                    on_response=lambda: carrier.idle_writers.add(writer),
                )
            finally:
                carrier.idle_writers.discard(writer)

    @contextlib.contextmanager
    def _count_channel(self) -> Iterator[None]:
        self.channels += 1
        try:
            yield
        finally:
            self.channels -= 1


async def splice(
    client: tuple[Any, Any],
    server: tuple[Any, Any],
    on_request: Callable[[], object] = lambda: None,
    on_response: Callable[[], object] = lambda: None,
) -> None:
    """Copy bytes both ways until both directions have ended, or one has failed.

    Call `on_request` for each chunk from the client and `on_response` for each one from the server.
    """
    try:
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(_pump(client[0], server[1], on_request))
            pumps.create_task(_pump(server[0], client[1], on_response))
    except* (OSError, asyncssh.Error):
        pass  # both ends notice: their streams end
    finally:
        for _, writer in (client, server):
            writer.close()


async def _pump(reader: Any, writer: Writer, on_chunk: Callable[[], object]) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        on_chunk()
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
