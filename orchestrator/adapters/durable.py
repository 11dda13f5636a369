"""Files that are whole or not there, also after a loss of power. Adapters use it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write the whole file, in place of the one that is there. Raises OSError."""
    with _draft(path, data, mode) as draft:
        draft.replace(path)


def create_file(path: Path, data: bytes) -> None:
    """Like `replace_file`, but leave a file that is there already. Raises OSError."""
    with _draft(path, data, 0o600) as draft, contextlib.suppress(FileExistsError):
        os.link(draft, path)


@contextlib.contextmanager
def _draft(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """A file on the disk, to be moved to `path`. What the block did is on the disk afterwards."""
    draft = tempfile.NamedTemporaryFile(dir=path.parent, delete=False)  # noqa: SIM115 - see finally
    try:
        with draft:
            draft.write(data)
            draft.flush()
            os.fchmod(draft.fileno(), mode)
            os.fsync(draft.fileno())
        yield Path(draft.name)
        sync_folder(path.parent)
    finally:
        Path(draft.name).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the names of the folder's files on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
