"""Temporary folders for the state of an installation."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def passable_folder() -> Iterator[Path]:
    """An empty folder that the proxy's workers, which run as another user, can go through."""
    with tempfile.TemporaryDirectory(prefix="spawn-bench-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)
