"""The log files of the supervised processes: opened, shown when a start fails, and kept small."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_MAX_BYTES = 20 * 1024**2


class ChildLogs:
    """The logs in one state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "log"
        self._proxy_folder = state_dir / "nginx"

    def prepare(self) -> None:
        """Raises OSError."""
        self._folder.mkdir(exist_ok=True)

    def open(self, name: str) -> IO[bytes]:
        """The log of a child. On a disk so full that it can't be created, the lines are lost."""
        try:
            return self._path(name).open("ab")
        except OSError:
            return Path(os.devnull).open("ab")

    def tail(self, name: str, start: int = 0, lines: int = 15) -> str:
        """Its last lines, of those from the byte `start` on."""
        return last_lines(self._path(name), start, lines)

    def rotate(self) -> Iterator[str]:
        """Empty the large ones. Yields what could not be done.

        Truncating is safe because every process opens its log for appending.
        """
        for folder in (self._folder, self._proxy_folder):
            for path in folder.glob("*.log"):
                try:
                    rotate_log(path, _MAX_BYTES)
                except OSError as error:  # housekeeping never ends the supervision
                    yield f"{path.name} could not be rotated: {error}"

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def last_lines(path: Path, start: int, lines: int) -> str:
    """The last lines of a log, of those from the byte `start` on."""
    try:
        data = path.read_bytes()
    except OSError:
        return "(no log)"
    return "\n".join(data[start:].decode(errors="replace").splitlines()[-lines:])


def rotate_log(path: Path, size_max_bytes: int) -> None:
    """Move the contents of a log that is larger than that to one older file.

    The older file goes first, because it frees room. If there is still none for the copy, the
    contents are lost: emptying the log matters more. Raises OSError.
    """
    if path.stat().st_size <= size_max_bytes:
        return
    older = path.with_suffix(".log.1")
    older.unlink(missing_ok=True)
    try:
        shutil.copyfile(path, older)
    except OSError:
        older.unlink(missing_ok=True)
    os.truncate(path, 0)
