"""Connects to an app's process. Used by the front, and by whoever tries an app."""

from __future__ import annotations

import asyncio
import socket
from typing import Self

_ADDRESSES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to whoever listens on this port of loopback. Raises OSError if nobody does.

    An app that listens on `localhost` or `::1` may be reached by IPv6 alone. With `0.0.0.0` or `::`
    it is reached by IPv4 as well.
    """
    return await asyncio.open_connection(sock=await _connect_socket(port))


class AppConnection:
    """A connection to an app that may answer, and hang up, before it has read its request.

    Not a StreamReader: when a write fails, that forgets the answer which came before.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @classmethod
    async def open(cls, port: int) -> Self:
        """Like `connect`."""
        return cls(await _connect_socket(port))

    async def read(self, max_bytes: int) -> bytes:
        """Empty at the end. Raises OSError. One task reads at a time, and one writes."""
        # What is there is read at once, so an app that always has more would keep all others from
        # their turn.
        await asyncio.sleep(0)
        return await asyncio.get_running_loop().sock_recv(self._sock, max_bytes)

    async def write(self, data: bytes) -> None:
        """Raises OSError. What came before can be read all the same."""
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    def close(self) -> None:
        self._sock.close()


async def _connect_socket(port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    refusal: OSError | None = None
    for family, address in _ADDRESSES:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # this machine has no IPv6
            refusal = refusal or error
            continue
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, (address, port))
        except ConnectionRefusedError as error:
            sock.close()
            refusal = refusal or error
        except BaseException:
            sock.close()
            raise
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
    assert refusal is not None
    raise refusal
