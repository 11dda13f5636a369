"""Writes into a pipe without waiting for its reader. Used by `child.py`."""

from __future__ import annotations

import asyncio
import contextlib
import os


class Feed:
    """Owns the writing end `fd`. Keeps the data that doesn't fit into the pipe yet."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._waiting = bytearray()
        self._is_last = False

    def write(self, data: bytes) -> None:
        """Send the data now or later. It is dropped if we or the reader have closed the pipe."""
        if self._fd < 0:
            return
        if not self._waiting:
            self._loop.add_writer(self._fd, self._flush)
        self._waiting += data

    def finish(self, data: bytes) -> None:
        """Send the data, then close the pipe."""
        self._is_last = True
        self.write(data)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _flush(self) -> None:
        try:
            with contextlib.suppress(BlockingIOError):
                del self._waiting[: os.write(self._fd, self._waiting)]
        except OSError:  # the reader is gone
            self.close()
            return
        if not self._waiting:
            self._loop.remove_writer(self._fd)
            if self._is_last:
                self.close()
