"""A real SSH server in this process. Its user's shell is bash with a start-up file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from orchestrator.adapters.ssh.forwarding import LinkTarget
from orchestrator.domain.pool.host_fields import HostAddress


@dataclass(frozen=True, kw_only=True)
class ShellHost:
    """A host that our key opens."""

    target: LinkTarget
    connections: set[asyncssh.SSHServerConnection]  # that are open

    def drop_connections(self) -> None:
        """End all connections, as a host does that restarts its sshd."""
        for connection in list(self.connections):
            connection.abort()


class _Server(asyncssh.SSHServer):
    def __init__(self, connections: set[asyncssh.SSHServerConnection]) -> None:
        self._connections = connections

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self._connection)

    def unix_server_requested(self, _path: str) -> bool:
        return True


@asynccontextmanager
async def shell_host(
    folder: Path, start_up: str, *, connection: str | None = "192.0.2.1 40000 192.0.2.2 22"
) -> AsyncIterator[ShellHost]:
    """A host whose shell runs the script `start_up` before each command.

    `connection`: what sshd puts into SSH_CONNECTION; None for nothing.
    """
    profile = folder / "bashrc"
    profile.write_text(start_up + "\n")
    env = {"PATH": os.environ["PATH"], "BASH_ENV": str(profile)}
    if connection is not None:
        env["SSH_CONNECTION"] = connection

    shells: set[asyncio.Task[None]] = set()
    pids: set[int] = set()
    closing = asyncio.Event()

    async def run_shell(process: asyncssh.SSHServerProcess[bytes]) -> None:
        pipe = asyncio.subprocess.PIPE
        shell = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            process.command or "true",
            env=env,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
        pids.add(shell.pid)
        if closing.is_set():
            _kill(shell.pid)
        assert shell.stdin is not None
        feeding = asyncio.create_task(_copy(process.stdin, shell.stdin))
        printing = [
            asyncio.create_task(_copy(shell.stdout, process.stdout)),
            asyncio.create_task(_copy(shell.stderr, process.stderr)),
        ]
        try:
            await asyncio.gather(*printing)
            process.exit(await shell.wait())
        except (OSError, asyncssh.Error):
            pass  # the client has gone
        finally:
            # None of them may still read when the rest is read below.
            for copying in (feeding, *printing):
                copying.cancel()
            await asyncio.gather(feeding, *printing, return_exceptions=True)
            _kill(shell.pid)
            await shell.communicate()
            pids.discard(shell.pid)

    def start_shell(process: asyncssh.SSHServerProcess[bytes]) -> None:
        shells.add(asyncio.create_task(run_shell(process)))

    host_key = asyncssh.generate_private_key("ssh-ed25519")
    our_key = asyncssh.generate_private_key("ssh-ed25519")
    our_key.write_private_key(folder / "key")
    (folder / "authorized_keys").write_bytes(our_key.export_public_key())
    connections: set[asyncssh.SSHServerConnection] = set()
    server = await asyncssh.create_server(
        lambda: _Server(connections),
        "127.0.0.1",
        0,
        server_host_keys=[host_key],
        authorized_client_keys=str(folder / "authorized_keys"),
        process_factory=start_shell,
        encoding=None,
    )
    try:
        yield ShellHost(
            target=LinkTarget(
                name="vps1",
                address=HostAddress(user="root", host="127.0.0.1", port=server.get_port()),
                pinned=host_key.export_public_key().decode().strip(),
                key=folder / "key",
                local_socket=folder / "links" / "docker.sock",
                local_agent_folder=folder / "local",
                agent_folder=str(folder / "agent"),
            ),
            connections=connections,
        )
    finally:
        server.close()
        # A shell that is cancelled while it ends would leave its pipes open: end it from below.
        closing.set()
        for pid in pids:
            _kill(pid)
        await asyncio.gather(*shells)
        await server.wait_closed()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


async def _copy(reader: Any, writer: Any) -> None:
    while data := await reader.read(4096):
        writer.write(data)
        await writer.drain()
    if isinstance(writer, asyncio.StreamWriter):
        writer.write_eof()
