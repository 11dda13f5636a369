"""HTTP requests to home over the mounted UNIX socket. Used by `inbox.py`, `reports.py`, `job.py`.

Each request opens its own connection. After a restart of home the socket is a new file, so only a
new connection by its path is sure to reach the home that is alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import h11

from agent.home.backoff import HOME_BACKOFF

CHUNK_BYTES = 64 * 1024
DEFAULT_MAX_BODY_BYTES = 1024 * 1024
CONNECT_TIMEOUT_S = 10.0


class HomeUnreachable(Exception):
    """Nobody answered, or the answer broke off. Temporary: try again after a pause."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """What home answered, in full."""

    status: int
    body: bytes


class HomeClient:
    """Sends requests to home. It keeps no token: each call brings its own."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path

    async def request(
        self,
        method: str,
        path: str,
        *,
        token: str,
        body: bytes = b"",
        headers: Iterable[tuple[str, str]] = (),
        timeout_s: float = 30.0,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    ) -> Response:
        """Try once. Raises HomeUnreachable if there is no whole answer within `timeout_s`."""
        request = h11.Request(
            method=method,
            target=path,
            headers=[
                ("Host", "home"),
                ("Authorization", f"Bearer {token}"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
                *headers,
            ],
        )
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(request, body, max_body_bytes)
        except TimeoutError as error:
            raise HomeUnreachable(f"no answer to {method} {path} in {timeout_s:g} s") from error
        except (OSError, h11.RemoteProtocolError) as error:
            raise HomeUnreachable(f"{method} {path}: {error}") from error

    async def request_until_answered(
        self,
        method: str,
        path: str,
        *,
        token: str,
        body: bytes = b"",
        headers: Iterable[tuple[str, str]] = (),
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    ) -> Response:
        """Try until home answers with a status below 500 other than 429, however long it is down.

        A caller that can't wait for ever wraps the call in `asyncio.timeout`.
        """
        attempt = 0
        while True:
            try:
                response = await self.request(
                    method,
                    path,
                    token=token,
                    body=body,
                    headers=headers,
                    max_body_bytes=max_body_bytes,
                )
            except HomeUnreachable:
                pass
            else:
                if response.status < 500 and response.status != 429:
                    return response
            await asyncio.sleep(HOME_BACKOFF.delay_s(attempt))
            attempt += 1

    async def _exchange(self, request: h11.Request, body: bytes, max_body_bytes: int) -> Response:
        # Not a StreamReader: when a write fails, it forgets the answer that came before.
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.get_running_loop().sock_connect(sock, self._socket_path)
            connection = h11.Connection(h11.CLIENT)
            # Home may answer 413 and close before it has read everything: look for that answer.
            with contextlib.suppress(ConnectionError):
                await _send(connection, sock, request, body)
            return await _receive(connection, sock, max_body_bytes)


async def _send(
    connection: h11.Connection, sock: socket.socket, request: h11.Request, body: bytes
) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, connection.send(request) or b"")
    view = memoryview(body)
    for start in range(0, len(body), CHUNK_BYTES):
        data = h11.Data(data=bytes(view[start : start + CHUNK_BYTES]))
        await loop.sock_sendall(sock, connection.send(data) or b"")
    connection.send(h11.EndOfMessage())  # adds no bytes, because the head has the length


async def _receive(
    connection: h11.Connection, sock: socket.socket, max_body_bytes: int
) -> Response:
    """Read a whole answer. If home hangs up before, h11 raises RemoteProtocolError."""
    loop = asyncio.get_running_loop()
    status = 0
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await loop.sock_recv(sock, CHUNK_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > max_body_bytes:
                raise OSError(f"the answer is larger than {max_body_bytes} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return Response(status=status, body=bytes(body))
