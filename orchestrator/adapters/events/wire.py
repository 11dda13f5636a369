"""What wake-ups look like: the names of the sockets, and the lines on them."""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence
from pathlib import Path

from orchestrator.adapters import unix_sockets

# A listener with a full socket misses wake-ups, and gets this line with the next one.
MISSED = "*"
_BACKLOG = 128


def bind(folder: Path, name: str, kinds: Collection[str]) -> socket.socket:
    """A socket on which the process `name` hears of these kinds. It doesn't block.

    It takes the place of an earlier one in one step. Raises OSError.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    return unix_sockets.listen(folder, f"{name}.{'+'.join(sorted(kinds))}", backlog=_BACKLOG)


def listens_to(file_name: str, kind: str) -> bool:
    """Whether the listener with the socket of this name wants to hear of this kind."""
    name, _, kinds = file_name.partition(".")
    return bool(name) and kind in kinds.split("+")


def encode(topic: str, *, has_missed: bool) -> bytes:
    return f"{MISSED}\n{topic}\n".encode() if has_missed else f"{topic}\n".encode()


class Decoder:
    """The lines of one connection."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Sequence[str]:
        """The topics, MISSED among them, whose lines are complete with this data."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode("ascii", "replace") for line in lines]
