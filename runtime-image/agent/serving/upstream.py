"""Connects to an app's process. Used by the front, and by whoever tries an app."""

from __future__ import annotations

import asyncio
import socket
from typing import Self

CONNECT_TIMEOUT_S = 5.0
"""That a request waits until the app takes its connection."""
LOOKS_S = (0.02, 0.16)
"""How long a connection may take, at first and at most, before the app's queue counts as full. With
room in the queue it takes no time, but on a busy machine that is some time, too."""
_ADDRESSES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to whoever listens on this port of loopback. Raises OSError if nobody does.

    An app that listens on `localhost` or `::1` may be reached by IPv6 alone. With `0.0.0.0` or `::`
    it is reached by IPv4 as well.
    """
    return await asyncio.open_connection(sock=await _connect_socket(port, limit_s=None))


class QueueFull(Exception):
    """The app has to take other connections first."""


class AppConnection:
    """A connection to an app that may answer, and hang up, before it has read its request.

    Not a StreamReader: when a write fails, that forgets the answer which came before.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @classmethod
    async def open(cls, port: int, *, limit_s: float) -> Self:
        """Like `connect`. Raises QueueFull if it takes longer than `limit_s`.

        The kernel would wait on: it sends again after 1 s, 3 s and 7 s, and may take a connection
        for open that the app never gets. So open one at a time, and then again.
        """
        return cls(await _connect_socket(port, limit_s=limit_s))

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


async def _connect_socket(port: int, *, limit_s: float | None) -> socket.socket:
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
            sock.connect_ex((address, port))
            if not _is_connected(sock):  # over loopback it mostly is
                try:
                    async with asyncio.timeout(limit_s):
                        await loop.sock_connect(sock, (address, port))
                except TimeoutError as error:
                    if not _is_connected(sock):
                        raise QueueFull from error
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


def _is_connected(sock: socket.socket) -> bool:
    """Whether it is, even if the loop has not said so yet. The app has it then."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
