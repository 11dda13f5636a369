"""A file that takes up room on the disk, so that there is some to give back when it is full."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from orchestrator.domain import errors

SIZE_BYTES = 16 * 1024**2  # a few times what SQLite's log grows by before it is written back


class ReserveFile:
    """ports.Reserve. Several processes may share the file."""

    def __init__(self, path: Path, size_bytes: int = SIZE_BYTES) -> None:
        self._path = path
        self._size_bytes = size_bytes

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def keep(self) -> None:
        if self._path.exists():
            return
        draft = self._path.with_suffix(".new")
        with errors.storage("set room aside"):
            try:
                with draft.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, self._size_bytes)
                draft.replace(self._path)
            except OSError:
                with contextlib.suppress(OSError):
                    draft.unlink()
                raise

    def release(self) -> bool:
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
