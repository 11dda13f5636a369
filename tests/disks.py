"""A small file system of its own that a test can fill. Needs root, like the firewall tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CHUNK = bytes(64 * 1024)


@dataclass(frozen=True, kw_only=True)
class SmallDisk:
    """A mounted file system."""

    folder: Path

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self) -> None:
        """Leave not a single block."""
        with self._ballast.open("ab", buffering=0) as ballast:
            size = len(_CHUNK)
            while size:
                try:
                    ballast.write(_CHUNK[:size])
                except OSError:
                    size //= 2

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[SmallDisk]:
    """Mount an empty file system at the folder, and unmount it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    _as_root("mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=0711", "spawn", str(folder))
    try:
        yield SmallDisk(folder=folder)
    finally:
        _as_root("umount", "--lazy", str(folder))


def _as_root(*argv: str) -> None:
    command = list(argv) if os.geteuid() == 0 else ["sudo", "-n", *argv]
    subprocess.run(command, check=True, timeout=30)
