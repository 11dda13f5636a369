"""The copies of an app's files, folders and links in the folder of its next version.

`app_data.py` says what is copied. The app goes on meanwhile: SQLite copies its databases, another
file is copied until nobody wrote to it. Modes, times, holes and links between files are kept.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator, Set

from agent.data import entries
from agent.data.folder_tree import FolderTree, is_gone
from agent.data.survey import JOURNALS, Look, look_at

SIDE_SUFFIXES = (*JOURNALS, "-shm")
"""Files beside a database. They belong to its moment, and a copy made by SQLite needs none."""
STILL_S = 0.02
"""A file that looks the same after this time isn't being written. The clock by which a kernel dates
files ticks every 1 to 10 ms: so whatever is written after that shows."""
PAUSES_MAX = 50
"""For all files of a copy. What is still written to then, like a log, is copied as it is."""
LOCK_LIMIT_S = 1.0
"""For all databases of a copy that their app keeps locked. A commit takes far less."""
OWNER_ALL = stat.S_IRWXU


class DataCopies:
    """What was copied from the folder `source` to the folder `target`, and how it looked then.

    The methods raise OSError if the copies can't be written.
    """

    def __init__(
        self, source: str, target: str, own_folders: Set[str], pause: Callable[[float], None]
    ) -> None:
        """`own_folders` are those of the target's bundle: they keep their times."""
        self._source_folder = source
        self._target_folder = target
        self._own_folders = own_folders
        self._sleep = pause
        self.looks: dict[str, Look | None] = {}  # None: written to while it was copied
        self.removed: Set[str] = frozenset()  # files of its bundle that the target has no more
        self.unread: dict[str, str] = {}  # what could not be read, and why
        self.lock_left_s = LOCK_LIMIT_S
        self._pauses_left = PAUSES_MAX
        self._journals: set[str] = set()  # copied with a database that SQLite couldn't copy
        self._touched: set[str] = set()  # folders in which something was made or removed
        self._firsts: dict[int, str] = {}  # the first copy of each inode with several names

    @contextlib.contextmanager
    def changing(self, source: FolderTree) -> Iterator[FolderTree]:
        """Open the target to change copies. At the end its folders get their modes and times."""
        self._pauses_left, self.lock_left_s = PAUSES_MAX, LOCK_LIMIT_S
        self._firsts, self._touched = {}, set()
        with FolderTree(self._target_folder) as target:
            for path, look in self.looks.items():
                if look is not None and look.is_folder and look.mode & OWNER_ALL != OWNER_ALL:
                    target.set_facts(path, mode=stat.S_IMODE(look.mode) | OWNER_ALL)
                    self._touched.add(path)
            yield target
            self._finish_folders(source, target)

    def pause(self) -> None:
        """Let some time pass, so that what is written now shows."""
        self._pauses_left -= 1
        self._sleep(STILL_S)

    def remove_own(self, target: FolderTree, paths: Set[str]) -> None:
        """Remove these files of the target's bundle, and its folders that are empty then."""
        for path in paths - self.removed:
            entries.unlink(target, path)
            while path := _folder_of(path):
                self._touched.add(path)
                if path in self.looks or not entries.rmdir(target, path):
                    break
        self.removed |= paths

    def drop(self, target: FolderTree, paths: Collection[str]) -> None:
        """Remove copies."""
        for path in sorted(paths, reverse=True):  # first what is in a folder
            look = self.looks.pop(path)
            self._touched.add(_folder_of(path))
            self.unread.pop(path, None)
            if look is not None and look.is_folder:
                entries.rmdir(target, path)
                continue
            entries.unlink(target, path)
            for journal in {path + suffix for suffix in JOURNALS} & self._journals:
                entries.unlink(target, journal)
                self._journals.remove(journal)

    def copy(self, source: FolderTree, target: FolderTree, path: str, seen: Look) -> None:
        """Copy a file, folder or link, which looked like `seen` before the last pause."""
        self._touched.add(_folder_of(path))
        if seen.is_folder:
            self._make_folder(target, path)
            self.looks[path] = seen
            return
        before: Look | None = seen
        look = look_at(source, path)
        if look is not None and look.links > 1 and self._link_to_first(target, path, look):
            return
        while look is not None:
            is_moment = self._copy_as_it_is(source, target, path, look)
            # A commit after SQLite's copy shows, unless the last one is as young as this look.
            after = look if is_moment else look_at(source, path)
            self.looks[path] = look if before == look == after else None
            if is_moment or self.looks[path] is not None or not self._pauses_left:
                return
            self.pause()
            before, look = after, look_at(source, path)
        if path in self.looks:
            self.drop(target, [path])

    def _link_to_first(self, target: FolderTree, path: str, look: Look) -> bool:
        """Make it another name of a copy that is there already. False if there is none."""
        first = self._firsts.setdefault(look.inode, path)
        if first == path or not entries.link(target, first, path):
            return False
        copied = self.looks.get(first)
        is_same = copied is not None and copied.facts == look.facts
        self.looks[path] = look if is_same else None
        return True

    def _copy_as_it_is(self, source: FolderTree, target: FolderTree, path: str, look: Look) -> bool:
        """Whether the copy is of one moment, whatever is written meanwhile."""
        entries.unlink(target, path)
        if look.is_folder:
            self._make_folder(target, path)
            return False
        entries.rmdir(target, path)  # it was a folder a moment ago
        with contextlib.suppress(_Vanished):
            if look.is_link:
                self._copy_link(source, target, path)
            else:
                return self._copy_file(source, target, path, look)
        return False

    def _make_folder(self, target: FolderTree, path: str) -> None:
        target.folder(path, make=True)
        self._touched.add(path)

    def _copy_link(self, source: FolderTree, target: FolderTree, path: str) -> None:
        with _reading():
            parent, name = source.parent(path)
            text = os.readlink(name, dir_fd=parent)
            details = source.stat(path)
        parent, name = target.parent(path, make=True)
        os.symlink(entries.own_link(self._source_folder, path, text), name, dir_fd=parent)
        os.utime(name, ns=entries.times_ns(details), dir_fd=parent, follow_symlinks=False)

    def _copy_file(self, source: FolderTree, target: FolderTree, path: str, look: Look) -> bool:
        """Whether SQLite has copied it."""
        if not look.size_bytes:  # needs no right to read it
            with _reading():
                details = source.stat(path)
            os.close(target.make_file(path))
            target.set_facts(path, mode=stat.S_IMODE(look.mode), times_ns=entries.times_ns(details))
            return False
        try:
            with _reading():
                opened = source.open_file(path)
        except PermissionError as error:
            self.unread[path] = str(error.strerror)
            return False
        try:
            is_database = entries.has_header(opened)
            if not is_database:
                entries.copy_opened(opened, target, path)
        finally:
            os.close(opened)  # before SQLite opens it: a later close would undo SQLite's locks
        return is_database and self._copy_database(source, target, path)

    def _copy_database(self, source: FolderTree, target: FolderTree, path: str) -> bool:
        for suffix in SIDE_SUFFIXES:  # of another moment, or of the target's bundle
            entries.unlink(target, path + suffix)
        if self._copy_by_sqlite(source, target, path):
            return True
        for name in (path, *(path + suffix for suffix in JOURNALS)):
            with contextlib.suppress(_Vanished, PermissionError):
                with _reading():
                    opened = source.open_file(name)
                try:
                    entries.copy_opened(opened, target, name)
                finally:
                    os.close(opened)
                if name != path:
                    self._journals.add(name)
        return False

    def _copy_by_sqlite(self, source: FolderTree, target: FolderTree, path: str) -> bool:
        # SQLite would wait for the other end of a pipe, for ever.
        if not all(_is_plain_or_missing(source, path + suffix) for suffix in SIDE_SUFFIXES):
            return False
        with _reading():
            details = source.stat(path)
        made = target.make_file(path)
        made_details = os.fstat(made)
        os.close(made)
        # Loaded now: most sandboxes never see a database.
        sqlite_copy = importlib.import_module("agent.data.sqlite_copy")
        began_at_s = time.monotonic()
        copied: bool = sqlite_copy.copy_database(
            sqlite_copy.Database(
                os.path.join(self._source_folder, path), details.st_dev, details.st_ino
            ),
            sqlite_copy.Database(
                os.path.join(self._target_folder, path), made_details.st_dev, made_details.st_ino
            ),
            lock_limit_s=self.lock_left_s,
        )
        if copied:
            mode = stat.S_IMODE(details.st_mode)
            target.set_facts(path, mode=mode, times_ns=entries.times_ns(details))
        else:
            self.lock_left_s = max(0.0, self.lock_left_s - (time.monotonic() - began_at_s))
            entries.unlink(target, path)
        return copied

    def _finish_folders(self, source: FolderTree, target: FolderTree) -> None:
        for path in sorted(self._touched, reverse=True):  # a folder may lock out what is in it
            look = self.looks.get(path)
            if look is not None and look.is_folder:
                times_ns = None
                if path not in self._own_folders:
                    with contextlib.suppress(OSError):  # gone: then it is dropped the next time
                        times_ns = entries.times_ns(source.stat(path))
                target.set_facts(path, mode=stat.S_IMODE(look.mode), times_ns=times_ns)


class _Vanished(Exception):
    """What was to be copied is gone, or is something else by now. The next look shows that."""


def _is_plain_or_missing(tree: FolderTree, path: str) -> bool:
    try:
        return stat.S_ISREG(tree.stat(path).st_mode)
    except FileNotFoundError:
        return True


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_gone(error):
            raise _Vanished from error
        raise


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]
