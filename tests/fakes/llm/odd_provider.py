"""A provider that does exactly what a test says, byte by byte: what a proper server can't."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

_HEAD_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer. `pieces` are sent one by one."""

    status: int = 200
    content_type: str = "text/event-stream"  # "": none is sent
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: Sequence[bytes] = ()
    is_silent: bool = False  # says nothing at all, and keeps the connection
    hangs_up: bool = False  # closes the connection without an answer
    stays_open: bool = False  # keeps the connection after the last piece
    is_cut: bool = False  # closes it before the end


Answers = Callable[[Mapping[str, Any], int], Reply]
"""From the body of a request, and how many came before it."""


class OddProvider:
    """`with OddProvider(answers) as provider: ... provider.url, provider.bodies`."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.bodies: list[Mapping[str, Any]] = []
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()
        for connection in self._connections:
            connection.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                with contextlib.suppress(OSError):
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        body = _read_body(connection)
        reply = self._answers(body, len(self.bodies))
        self.bodies.append(body)
        if reply.is_silent:
            return
        if not reply.hangs_up:
            _send(connection, reply)
        if not reply.stays_open:
            connection.shutdown(socket.SHUT_RDWR)


def _read_body(connection: socket.socket) -> Mapping[str, Any]:
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += connection.recv(_HEAD_MAX_BYTES)
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
    length = next(int(value) for name, _, value in lines if name == b"content-length")
    while len(body) < length:
        body += connection.recv(_HEAD_MAX_BYTES)
    decoded: Mapping[str, Any] = json.loads(body)
    return decoded


def _send(connection: socket.socket, reply: Reply) -> None:
    fields = {
        **({"content-type": reply.content_type} if reply.content_type else {}),
        "transfer-encoding": "chunked",
        "connection": "close",
        **reply.headers,
    }
    lines = [
        f"HTTP/1.1 {reply.status} Odd",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    for piece in filter(None, reply.pieces):
        connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    if not (reply.is_cut or reply.stays_open):
        connection.sendall(b"0\r\n\r\n")
