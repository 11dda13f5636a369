"""Reads the sandbox's identity from standard input. Called once by `work.py`.

Home sends it there, because everybody who inspects the container can read its environment, its
command line and its image.
"""

from __future__ import annotations

import asyncio
import os

from orchestrator.contract.wire import Identity, ProtocolError, decode, parse_identity

MAX_LINE_BYTES = 16 * 1024


async def read_identity(stdin_fd: int = 0) -> Identity:
    """Wait for one line of JSON, without a deadline: who creates the container decides how long.

    Raises ProtocolError if the input ends before, or if the line is no identity.
    """
    loop = asyncio.get_running_loop()
    line: asyncio.Future[bytes] = loop.create_future()
    received = bytearray()

    def on_readable() -> None:
        chunk = os.read(stdin_fd, MAX_LINE_BYTES)
        received.extend(chunk)
        if b"\n" in chunk or not chunk or len(received) > MAX_LINE_BYTES:
            loop.remove_reader(stdin_fd)
            line.set_result(bytes(received))

    loop.add_reader(stdin_fd, on_readable)
    return parse_line(await line)


def parse_line(received: bytes) -> Identity:
    """The identity in the first line. Raises ProtocolError."""
    first, newline, _ = received.partition(b"\n")
    if not newline:
        raise ProtocolError("identity", "standard input ended before a whole line")
    return parse_identity(decode(first, "identity"))
