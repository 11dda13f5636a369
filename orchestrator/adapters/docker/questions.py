"""GET requests to an engine on a UNIX socket, from an event loop. watch.py makes them.

Each has a connection of its own, which ends with it. h11 reads the answer, straight from the
socket: a client with pools, proxies and TLS takes several times as long for each event.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from urllib.parse import urlencode

import h11

HEAD_TIMEOUT_S = 5.0  # to connect, ask and get the answer's head
_READ_BYTES = 64 * 1024


@contextlib.asynccontextmanager
async def get(
    socket_path: str, target: str, params: Mapping[str, str] | None = None
) -> AsyncGenerator[AsyncIterator[bytes]]:
    """Ask, and yield the body of a good answer as it comes: at most 64 KiB at a time, as they were
    sent. A compressed body could be endless in a few of them.

    Raises OSError: there is no good answer, none in time, or it breaks off.
    """
    connection = h11.Connection(h11.CLIENT)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                await asyncio.get_running_loop().sock_connect(sock, socket_path)
                await _ask(connection, sock, f"{target}?{urlencode(params)}" if params else target)
                response = await _read_head(connection, sock)
        except TimeoutError as error:
            raise TimeoutError(f"no answer to GET {target} in {HEAD_TIMEOUT_S:g} s") from error
        if response.status_code != 200:
            reason = response.reason.decode("latin-1")
            raise OSError(f"GET {target}: {response.status_code} {reason}".rstrip())
        async with contextlib.aclosing(_pieces(connection, sock)) as pieces:
            yield pieces


async def _ask(connection: h11.Connection, sock: socket.socket, target: str) -> None:
    headers = [("Host", "docker"), ("Accept-Encoding", "identity"), ("Connection", "close")]
    head = connection.send(h11.Request(method="GET", target=target, headers=headers))
    connection.send(h11.EndOfMessage())  # adds no bytes
    await asyncio.get_running_loop().sock_sendall(sock, head or b"")


async def _read_head(connection: h11.Connection, sock: socket.socket) -> h11.Response:
    while True:
        event = _next_event(connection)
        if isinstance(event, h11.Response):
            return event
        if event is h11.NEED_DATA:
            await asyncio.sleep(0)  # a read that needs no wait lets nobody else run
            if not await _receive(connection, sock):
                raise ConnectionError("it hung up without an answer")


async def _pieces(connection: h11.Connection, sock: socket.socket) -> AsyncGenerator[bytes]:
    """What each read has brought of the body. It may be nothing."""
    while True:
        piece, is_last = _take_piece(connection)
        yield piece
        if is_last:
            return
        await _receive(connection, sock)


def _take_piece(connection: h11.Connection) -> tuple[bytes, bool]:
    """What has been received of the body, and whether it ends with that."""
    parts = []
    while True:
        event = _next_event(connection)
        if isinstance(event, h11.Data):
            parts.append(event.data)
        else:
            return b"".join(parts), event is not h11.NEED_DATA


def _next_event(connection: h11.Connection) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
    """Raises OSError for what is no HTTP, or breaks off."""
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as error:
        raise OSError(str(error)) from error


async def _receive(connection: h11.Connection, sock: socket.socket) -> bytes:
    """Read once. Returns what came; b"" is the end of the connection."""
    data = await asyncio.get_running_loop().sock_recv(sock, _READ_BYTES)
    connection.receive_data(data)
    return data
