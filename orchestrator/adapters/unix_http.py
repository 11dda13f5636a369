"""HTTP over UNIX sockets of this machine, on which our own processes answer each other."""

from __future__ import annotations

import http.client
import socket
import struct
from pathlib import Path

_TIMEOUT_S = 2
_TIMEVAL = struct.Struct("@ll")  # seconds and microseconds


def get(path: Path, target: str, host: str = "home") -> bytes:
    """The body of a good answer, over a new connection. Empty if there is none within 2 s."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", target, headers={"Host": host, "Connection": "close"})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()
    return body if response.status == 200 else b""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("home", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        # With a timeout of Python's own, a full queue of the listener is an error at once.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(_TIMEOUT_S, 0))
        self.sock.connect(str(self._path))
        self.sock.settimeout(_TIMEOUT_S)
