"""Heartbeats: how processes without a listener say that they go on. The supervisor hears them.

They use the protocol of sd_notify(3): a datagram `WATCHDOG=1` to the socket that NOTIFY_SOCKET
names. The kernel tells us who sent it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Set
from pathlib import Path

VARIABLE = "NOTIFY_SOCKET"
_BEAT = b"WATCHDOG=1"
_BEAT_EVERY_S = 1.0
_CREDENTIALS = struct.Struct("=iII")  # process, user, group: unix(7), SCM_CREDENTIALS
_READ_MAX = 1000  # datagrams per look


class HeartbeatSocket:
    """Where the supervisor hears its children's heartbeats."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if the socket can't be made."""
        self.path = path
        path.unlink(missing_ok=True)  # of an earlier supervisor
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))

    def read(self) -> Set[int]:
        """The processes whose heartbeat has arrived since the last call."""
        pids = set()
        for _ in range(_READ_MAX):
            try:
                data, ancillary, _, _ = self._socket.recvmsg(
                    64, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
            except BlockingIOError:
                break
            for level, kind, value in ancillary:
                if data == _BEAT and (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    pids.add(_CREDENTIALS.unpack(value[: _CREDENTIALS.size])[0])
        return pids

    def release(self) -> None:
        """Close it in a fork, which hears nothing."""
        self._socket.close()

    def close(self) -> None:
        self._socket.close()
        with contextlib.suppress(OSError):  # on a disk that takes no writes; the next one does it
            self.path.unlink(missing_ok=True)


class Heart:
    """Sends this process's heartbeats. Without a supervisor that hears them it does nothing."""

    def __init__(self) -> None:
        self._path = os.environ.get(VARIABLE)

    def beat(self) -> None:
        """Say that we go on. Never blocks."""
        if self._path is None:
            return
        with (
            contextlib.suppress(OSError),  # a supervisor that reads slowly hears the next one
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender,
        ):
            sender.sendto(_BEAT, self._path)


def beat_forever(is_well: Callable[[], bool]) -> None:
    """Beat each second in a thread of its own, as long as this process `is_well`."""
    heart, pause = Heart(), threading.Event()

    def run() -> None:
        while True:
            if is_well():
                heart.beat()
            pause.wait(_BEAT_EVERY_S)

    threading.Thread(target=run, name="heartbeat", daemon=True).start()
