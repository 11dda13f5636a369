"""What wake-ups look like: the names of the sockets, and the lines on them."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Sequence
from pathlib import Path

# A listener with a full socket misses wake-ups, and gets this line with the next one.
MISSED = "*"
_BACKLOG = 128
_DRAFT = "."  # what the name of a socket begins with, before it listens


def bind(folder: Path, name: str, kinds: Collection[str]) -> socket.socket:
    """A socket on which the process `name` hears of these kinds. It doesn't block.

    It takes the place of an earlier one in one step. The path may be longer than the kernel allows
    for a socket, 107 bytes. Raises OSError.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    file_name = f"{name}.{'+'.join(sorted(kinds))}"
    draft = _DRAFT + file_name
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        (folder / draft).unlink(missing_ok=True)
        listening.bind(f"/proc/self/fd/{descriptor}/{draft}")
        listening.listen(_BACKLOG)
        os.replace(draft, file_name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
    except BaseException:
        listening.close()
        raise
    finally:
        os.close(descriptor)
    return listening


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
