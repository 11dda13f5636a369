"""Which container is at the other end of a connection: the kernel says so. connections.py asks.

This needs no token, so it works before the first byte. It sees the containers of this machine. The
connections of other hosts come from our daemon, which forwards them.
"""

from __future__ import annotations

import re
import socket
import struct
from pathlib import Path

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: see SO_PEERCRED in unix(7)
_CONTAINER_ID = re.compile(rb"[0-9a-f]{64}")  # as Docker names a container's cgroup


class Peers:
    """Tells containers apart by their cgroup."""

    def __init__(self) -> None:
        self._own = _container_of("self")  # if we run in a container ourselves

    def container(self, connection: socket.socket) -> str | None:
        """The id of the container that opened this connection. None: it was one of our processes,
        or the kernel doesn't tell, because we see no processes of containers."""
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, _, _ = _CREDENTIALS.unpack(raw)
        container = _container_of(str(pid)) if pid > 0 else None
        return None if container == self._own else container


def _container_of(process: str) -> str | None:
    try:
        cgroups = Path("/proc", process, "cgroup").read_bytes()
    except OSError:
        return None
    container_ids = _CONTAINER_ID.findall(cgroups)
    return container_ids[-1].decode() if container_ids else None
