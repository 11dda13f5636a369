"""Sockets that our processes listen on, by a name in a folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def listen(folder: Path, name: str, *, backlog: int, mode: int | None = None) -> socket.socket:
    """A socket that listens under this name in the folder, which exists. It doesn't block.

    It takes the place of an earlier one in one step, and has another name, with a dot before it,
    until then. `mode` says who may connect. The path may be longer than the kernel allows for a
    socket, 107 bytes. Raises OSError.
    """
    draft = f".{name}"
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        (folder / draft).unlink(missing_ok=True)
        listening.bind(f"/proc/self/fd/{descriptor}/{draft}")
        if mode is not None:
            os.chmod(draft, mode, dir_fd=descriptor)
        listening.listen(backlog)
        os.replace(draft, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
    except BaseException:
        listening.close()
        raise
    finally:
        os.close(descriptor)
    return listening
