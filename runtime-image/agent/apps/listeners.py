"""On which addresses processes listen, read from /proc. `app.py` uses it for its complaint."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence

LISTENING = "0A"  # include/net/tcp_states.h
ADDRESSES_MAX = 5
REACHED = ("127.0.0.1", "0.0.0.0", "[::]", "[::1]")
"""Where visitors reach an app."""
_TABLES = ((socket.AF_INET, "/proc/net/tcp"), (socket.AF_INET6, "/proc/net/tcp6"))
_SOCKET_PREFIX = "socket:["


def addresses_of(pids: Iterable[int]) -> list[str]:
    """`address:port` of each TCP socket on which one of these processes listens, at most a few."""
    sockets = {inode for pid in pids for inode in _sockets_of(pid)}
    addresses: list[str] = []
    for family, path in _TABLES:
        with contextlib.suppress(OSError), open(path) as table:
            addresses += parse_table(family, table, sockets)
    return sorted(addresses)[:ADDRESSES_MAX]


def describe(addresses: Sequence[str], port: int) -> str:
    """Why an app gives no answer on this port of loopback."""
    if not addresses:
        return "it listens on no port"
    if any(address in {f"{name}:{port}" for name in REACHED} for address in addresses):
        return "it listens there, but answers no request"
    return f"it listens on {', '.join(addresses)} instead; use $HOST and $PORT"


def parse_table(family: int, table: Iterable[str], sockets: Collection[str]) -> list[str]:
    """The listeners in /proc/net/tcp or tcp6, see proc(5), whose inodes are in `sockets`."""
    rows = [line.split() for line in table]
    return [
        _address(family, row[1])
        for row in rows
        if len(row) > 9 and row[3] == LISTENING and row[9] in sockets
    ]


def _address(family: int, text: str) -> str:
    host, _, port = text.partition(":")
    # Words of four bytes, each in the order of this machine.
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    name = socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))
    return f"[{name}]:{int(port, 16)}" if ":" in name else f"{name}:{int(port, 16)}"


def _sockets_of(pid: int) -> Iterator[str]:
    """The inodes of a process's sockets; none if it is gone or hides them."""
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                target = os.readlink(f"{folder}/{name}")
                if target.startswith(_SOCKET_PREFIX):
                    yield target[len(_SOCKET_PREFIX) : -1]
