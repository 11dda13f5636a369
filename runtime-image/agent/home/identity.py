"""Reads the sandbox's identity from standard input. Called once by `work.py`.

Standard input, because environment, argv and image can be read by whoever inspects the container.
"""

from __future__ import annotations

import asyncio
import json
import os

from agent.protocol import Identity, ProtocolError, parse_identity

MAX_LINE_BYTES = 16 * 1024


async def read_identity(stdin_fd: int = 0) -> Identity:
    """Wait for one line of JSON. There is no deadline: the container's creator decides how long.

    Raises ProtocolError if the input ends first or isn't an identity.
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
    first, newline, _ = received.partition(b"\n")
    if not newline:
        raise ProtocolError("standard input ended before a whole line with the identity")
    try:
        document = json.loads(first)
    except ValueError as error:
        raise ProtocolError("the identity on standard input is not JSON") from error
    return parse_identity(document)
