"""Helpers that read from a raw connection, for tests that pause in the middle of a request."""

from __future__ import annotations

import socket


def read_until(connection: socket.socket, ending: bytes) -> bytes:
    data = b""
    while not data.endswith(ending):
        more = connection.recv(1000)
        assert more, f"connection ended after {data!r}"
        data += more
    return data


def read_all(connection: socket.socket) -> str:
    data = b""
    while more := connection.recv(65536):
        data += more
    return data.decode()
