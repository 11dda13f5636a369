"""Reads the small files of the state folder, whatever lies there: a pipe, a device or noise.

The settings, the command line and the adapter of the state folder use it.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

MAX_BYTES = 1024**2


def open_file(path: Path) -> BinaryIO:
    """Open a file to read it. Raises OSError, also for what isn't a regular file: opening a pipe
    waits for somebody to write to it, and a device may never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises OSError, also for one of more than 1 MiB."""
    with open_file(path) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return data


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with U+FFFD for what is none. Raises OSError."""
    return read_bytes(path).decode("utf-8", "replace")
