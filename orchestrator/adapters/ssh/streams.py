"""A command on a host whose three streams are ours. Called by `spawnctl hosts exec`."""

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
_SIGNALLED = 128  # plus the signal's number: as shells report it


async def run(connection: asyncssh.SSHClientConnection, argv: Sequence[str]) -> int:
    """Run it, its words quoted for the remote shell; its exit code. Raises LinkDown when the
    connection ends under it, BrokenPipeError when nobody reads our output any more."""
    try:
        process = await connection.create_process(shlex.join(argv), encoding=None)
        _feed(process, asyncio.get_running_loop())
        await asyncio.gather(_drain(process.stdout, 1), _drain(process.stderr, 2))
        await process.wait_closed()
    except BrokenPipeError:
        raise
    except (OSError, asyncssh.Error) as error:
        raise ssh.ended(error) from error
    code = process.returncode
    if code is None:
        raise errors.LinkDown("the connection ended under the command", code="unreachable")
    return code if code >= 0 else _SIGNALLED - code


async def _drain(reader: asyncssh.SSHReader[bytes], target: int) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        while data:
            data = data[os.write(target, data) :]


def _feed(process: asyncssh.SSHClientProcess[bytes], loop: asyncio.AbstractEventLoop) -> None:
    """Our standard input, whatever it is: a loop can't wait on a file. The thread is a daemon: one
    that waits for a terminal must not keep us from ending."""

    async def hand_on(data: bytes) -> None:
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
                asyncio.run_coroutine_threadsafe(hand_on(data), loop).result()
            except (OSError, RuntimeError, asyncssh.Error, asyncio.CancelledError):
                return  # the command has ended, and takes no more

    threading.Thread(target=read, daemon=True, name="stdin").start()
