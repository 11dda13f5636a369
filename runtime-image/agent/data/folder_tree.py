"""Reaches what is below a folder that an app may change at any moment, and follows no link.

A path is opened name by name, each folder from the one before it. If the app puts a link where a
folder was, that fails; a path as a whole would lead wherever the link does. `copies.py` reads
the app's folder and fills that of its next version this way.
"""

from __future__ import annotations

import errno
import os
import stat
from types import TracebackType
from typing import Self

KEPT_MAX = 32
"""Folders that stay open on the way to the last one. Whatever is deeper is opened again."""
GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO})
"""Errors that say that what was there is missing, or is something else by now."""
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


class FolderTree:
    """The folders and files below `root`. Paths are relative to it; "" is the root itself.

    All methods raise OSError. A folder's descriptor holds until the next call.
    """

    def __init__(self, root: str) -> None:
        self._fds = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)]
        self._names: list[str] = []  # of those below the root that `_fds` has
        self._deep: int | None = None  # the last one, if it is deeper than those
        self._path: str | None = ""  # the last one's; None if it could not be opened

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(0)
        os.close(self._fds.pop())

    def folder(self, path: str, *, make: bool = False) -> int:
        """A descriptor of a folder. `make` makes what is missing of it.

        Raises FileExistsError if `make`, and something else is in its place.
        """
        if path != self._path:
            self._path = None
            names = path.split("/") if path else []
            shared = 0
            for name, kept in zip(names, self._names, strict=False):
                if name != kept:
                    break
                shared += 1
            self._leave(shared)
            for name in names[shared:]:
                self._go_down(name, make=make)
            self._path = path
        return self._last

    def parent(self, path: str, *, make: bool = False) -> tuple[int, str]:
        """A descriptor of the folder that has `path`, and its name there."""
        folder, _, name = path.rpartition("/")
        return self.folder(folder, make=make), name

    def stat(self, path: str) -> os.stat_result:
        """Of a link itself."""
        parent, name = self.parent(path)
        return os.stat(name, dir_fd=parent, follow_symlinks=False)

    def open_file(self, path: str) -> int:
        """Open a regular file to read. To open a pipe would wait for its writer."""
        parent, name = self.parent(path)
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _FLAGS, dir_fd=parent)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is not a plain file", path)
        return fd

    def make_file(self, path: str) -> int:
        """Open a new file to write, which nobody else can read yet."""
        parent, name = self.parent(path, make=True)
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=parent)

    def set_facts(self, path: str, *, mode: int, times_ns: tuple[int, int] | None = None) -> None:
        """Set mode and times of a file or folder, also of one that nobody may open."""
        parent, name = self.parent(path)
        fd = os.open(name, os.O_PATH | _FLAGS, dir_fd=parent)
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            opened = f"/proc/self/fd/{fd}"
            os.chmod(opened, mode)
            if times_ns is not None:
                os.utime(opened, ns=times_ns)
        finally:
            os.close(fd)

    @property
    def _last(self) -> int:
        return self._fds[-1] if self._deep is None else self._deep

    def _leave(self, kept: int) -> None:
        """Close all but the root and `kept` folders below it."""
        if self._deep is not None:
            os.close(self._deep)
            self._deep = None
        while len(self._names) > kept:
            self._names.pop()
            os.close(self._fds.pop())

    def _go_down(self, name: str, *, make: bool) -> None:
        fd = _open_folder(name, self._last, make=make)
        if self._deep is None and len(self._names) < KEPT_MAX:
            self._fds.append(fd)
            self._names.append(name)
            return
        if self._deep is not None:
            os.close(self._deep)
        self._deep = fd


def is_gone(error: OSError) -> bool:
    """Whether what was to be opened or looked at isn't there any more."""
    return error.errno in GONE


def _open_folder(name: str, parent: int, *, make: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | _FLAGS
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
    except NotADirectoryError as error:
        if make:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from error
        raise
    os.mkdir(name, 0o755, dir_fd=parent)
    return os.open(name, flags, dir_fd=parent)
