"""Walks, reads and deletes folders that a program has filled, whatever it made there.

Folders may be so deep that no path reaches their end, hold millions of entries, names of any bytes,
links in circles and pipes, and refuse their own owner. Nothing here follows a link, recurses, waits
or keeps more than a bounded number of names. Used by `archive.py` and by the agent.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO

SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", ".git"})
"""Caches: no bundle holds them."""
ENTRIES_MAX = 50_000
"""Files and folders that a walk looks at: far more than a bundle holds."""
Facts = tuple[int, int, int]
"""Size, time of the last change (also of mode or links) in nanoseconds, and inode of a file."""
_PATH_MAX_CHARS = 1_000
"""Of a path that is still walked into. Linux takes 4,096 bytes, and a character has up to four."""
_PASSES_MAX = 100
_NAMES_PER_PASS = 10_000


def _ignore(path: str, reason: str) -> None:
    pass


def facts_of(details: os.stat_result) -> Facts:
    """What differs once somebody has written to the file, or has put another in its place.

    The time is one that a program can't set: some put back the other one after a write.
    """
    return details.st_size, details.st_ctime_ns, details.st_ino


def walk_files(
    folder: str, on_skip: Callable[[str, str], None] = _ignore
) -> Iterator[tuple[str, os.stat_result]]:
    """Relative path and details of each regular file, without those in SKIPPED_FOLDERS.

    `on_skip` gets the path of what can't be looked at, and the reason.
    """
    left = ENTRIES_MAX
    waiting = [""]
    while waiting:
        parent = waiting.pop()
        try:
            with os.scandir(os.path.join(folder, parent)) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        on_skip(parent, f"there are more than {ENTRIES_MAX} files and folders")
                        return
                    path = os.path.join(parent, entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name in SKIPPED_FOLDERS:
                            continue
                        if len(path) > _PATH_MAX_CHARS:
                            on_skip(path, "the folders are too deep")
                            continue
                        waiting.append(path)
                    elif entry.is_file(follow_symlinks=False):
                        details = _details(entry, path, on_skip)
                        if details is not None:
                            yield path, details
        except OSError as error:
            on_skip(parent, f"it can't be read: {error.strerror}")


def _details(
    entry: os.DirEntry[str], path: str, on_skip: Callable[[str, str], None]
) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError as error:
        on_skip(path, f"it can't be read: {error.strerror}")
        return None


def open_plain(path: str) -> BinaryIO:
    """Open a regular file to read. Raises OSError if it is anything else, or can't be read.

    To open a pipe would wait for its writer, for ever if there is none.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a plain file", path)
    return open(fd, "rb")


def remove_tree(folder: str) -> None:
    """Delete a folder with all that is below it, or whatever else has its name.

    What can't be deleted stays.
    """
    if not _is_folder(folder):
        with contextlib.suppress(OSError):
            os.unlink(folder)
        return
    moved = itertools.count()
    waiting = [(folder, _PASSES_MAX)]
    while waiting:
        path, passes = waiting.pop()
        names = _names(path) if passes else []
        if not names:
            with contextlib.suppress(OSError):
                os.rmdir(path)
            continue
        # Again only if there may be more names: what resists would be tried 100 times a level.
        waiting.append((path, passes - 1 if len(names) == _NAMES_PER_PASS else 0))
        for name in names:
            below = os.path.join(path, name)
            if not _is_folder(below):
                with contextlib.suppress(OSError):
                    os.unlink(below)
                continue
            if len(below) > len(folder) + _PATH_MAX_CHARS:
                below = _moved_up(below, os.path.join(folder, f".removed-{next(moved)}"))
            waiting.append((below, _PASSES_MAX))


def _names(path: str) -> list[str]:
    """Some of the names in a folder, which is made readable and writable before."""
    try:
        os.chmod(path, 0o700)
        with os.scandir(path) as entries:
            return [entry.name for entry in itertools.islice(entries, _NAMES_PER_PASS)]
    except OSError:
        return []


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _moved_up(path: str, target: str) -> str:
    """Move a folder to a shorter path, so that what is below it can be reached."""
    try:
        os.rename(path, target)
    except OSError:
        return path
    return target
