"""Copies one file of an app to the folder of its next version; makes and removes entries there.

Used by `copies.py`. Bytes, holes, mode and times are kept, and no link is followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from agent.data.folder_tree import FolderTree
from agent.data.survey import BLOCK_BYTES

SQLITE_HEADER = b"SQLite format 3\0"
"""The first bytes of every database: https://www.sqlite.org/fileformat2.html."""


def own_link(folder: str, path: str, text: str) -> str:
    """The text for a copy of the link at `path` below `folder`.

    A link into the app's folder must not name that folder: the next version has another one. What
    leads elsewhere stays as it is. Nobody follows either.
    """
    near = os.path.normpath(os.path.join(os.path.dirname(path), text))
    if not os.path.isabs(text) and near.split("/", 1)[0] != "..":
        return text
    place = os.path.normpath(os.path.join(folder, near))
    if place != folder and not place.startswith(folder + "/"):
        return text
    return os.path.relpath(place, os.path.dirname(os.path.join(folder, path)))


def copy_bytes(source: int, sink: int) -> None:
    """Copy a file's bytes as long as it is now; its holes stay holes. Both are descriptors."""
    details = os.fstat(source)
    size = details.st_size
    if details.st_blocks * BLOCK_BYTES >= size:
        _send(source, sink, 0, size)
        return
    end = 0
    while (begin := _next_data(source, end)) is not None and begin < size:
        end = min(os.lseek(source, begin, os.SEEK_HOLE), size)
        _send(source, sink, begin, end)
    os.ftruncate(sink, size)


def is_database(tree: FolderTree, path: str) -> bool:
    """Whether a file says so itself."""
    try:
        opened = tree.open_file(path)
    except OSError:
        return False
    try:
        return has_header(opened)
    finally:
        os.close(opened)


def has_header(opened: int) -> bool:
    """Whether an open file says that it is a database."""
    return os.pread(opened, len(SQLITE_HEADER), 0) == SQLITE_HEADER


def _next_data(opened: int, begin: int) -> int | None:
    """Where the next bytes are that are no hole; None if there are none."""
    try:
        return os.lseek(opened, begin, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _send(source: int, sink: int, begin: int, end: int) -> None:
    os.lseek(sink, begin, os.SEEK_SET)
    while begin < end:
        count = os.sendfile(sink, source, begin, end - begin)
        if not count:
            return  # it was cut meanwhile
        begin += count


def copy_opened(opened: int, target: FolderTree, path: str) -> None:
    """Copy an open file to the new file `path`, with its mode and times. Raises OSError."""
    details = os.fstat(opened)
    sink = target.make_file(path)
    try:
        copy_bytes(opened, sink)
        os.fchmod(sink, stat.S_IMODE(details.st_mode))
        os.utime(sink, ns=times_ns(details))
    finally:
        os.close(sink)


def times_ns(details: os.stat_result) -> tuple[int, int]:
    """For `os.utime`."""
    return details.st_atime_ns, details.st_mtime_ns


def link(target: FolderTree, first: str, path: str) -> bool:
    """Give the file or link `first` another name.

    False if it is gone, or has all the names that it may have. Raises OSError.
    """
    parent, name = target.parent(first)
    parent = os.dup(parent)
    try:
        folder, other = target.parent(path, make=True)
        os.link(name, other, src_dir_fd=parent, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EMLINK):
            return False
        raise
    finally:
        os.close(parent)
    return True


def unlink(target: FolderTree, path: str) -> None:
    """Remove a file or link, if there is one. A folder stays. Raises OSError."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        parent, name = target.parent(path)
        os.unlink(name, dir_fd=parent)


def rmdir(target: FolderTree, path: str) -> bool:
    """Remove a folder if it is empty. False if it stays."""
    try:
        parent, name = target.parent(path)
        os.rmdir(name, dir_fd=parent)
    except OSError:
        return False
    return True
