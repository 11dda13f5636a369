"""A remote command that uses our own three standard streams. Called by `spawnctl hosts exec`."""

from __future__ import annotations

import asyncio
import os
import shlex
import threading
from collections.abc import Sequence

import asyncssh

from orchestrator.adapters.ssh import connection as ssh
from orchestrator.domain import errors

_CHUNK_BYTES = 64 * 1024
_SIGNALLED = 128  # plus the signal's number: the exit code that shells report


async def run_attached(connection: asyncssh.SSHClientConnection, argv: Sequence[str]) -> int:
    """Run a command, its words quoted for the remote shell, and return its exit code.

    Raises errors.LinkDown when the connection ends first, BrokenPipeError when nobody reads our
    output any more.
    """
    try:
        process = await connection.create_process(shlex.join(argv), encoding=None)
        _feed_stdin(process, asyncio.get_running_loop())
        await asyncio.gather(_copy(process.stdout, 1), _copy(process.stderr, 2))
        await process.wait_closed()
    except BrokenPipeError:
        raise
    except (OSError, asyncssh.Error) as error:
        raise ssh.connection_lost(error) from error
    code = process.returncode
    if code is None:
        raise errors.LinkDown("the connection ended during the command", code="unreachable")
    return code if code >= 0 else _SIGNALLED - code


async def _copy(reader: asyncssh.SSHReader[bytes], target_fd: int) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        while data:
            data = data[os.write(target_fd, data) :]


def _feed_stdin(process: asyncssh.SSHClientProcess[bytes], loop: asyncio.AbstractEventLoop) -> None:
    """Copy our standard input to the process, in a thread: an event loop can't wait on a file.

    The thread is a daemon, because one that waits for a terminal must not keep us from exiting.
    """

    async def forward(data: bytes) -> None:
        if process.is_closing():
            return
        if data:
            process.stdin.write(data)
            await process.stdin.drain()
        else:
            process.stdin.write_eof()

    def read() -> None:
        data = b"."
        while data:
            data = os.read(0, _CHUNK_BYTES)
            try:
                asyncio.run_coroutine_threadsafe(forward(data), loop).result()
            except (OSError, RuntimeError, asyncssh.Error, asyncio.CancelledError):
                return  # the command has ended and takes no more input

    threading.Thread(target=read, daemon=True, name="stdin").start()
