"""Copies the files that an app wrote at run time, such as its database, to its next version.

`workshop.py` copies them for each try of that version, `handover.py` once more when that version
replaces the app. A version is only source; the data of its users must survive a change. The app
goes on working meanwhile: SQLite copies its databases, other files are copied while nobody writes
to them.

A file of the bundle that the app has written to is data, too: a list that it was delivered with, or
a database that was made while the model tried the app. It stays the users', unless the model has
changed it for the next version. A database stays theirs even then: a command may have opened it.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping

from orchestrator.contract import archive
from orchestrator.contract.trees import Facts, facts_of, open_plain, walk_files

FILES_MAX = 20_000
SQLITE_HEADER = b"SQLite format 3\0"
"""The first bytes of every database: https://www.sqlite.org/fileformat2.html."""
LOOKED_AT = ("-wal", "-journal")
SIDE_SUFFIXES = (*LOOKED_AT, "-shm")
"""Files beside a database. They belong to its moment, and a copy made by SQLite needs none."""
STILL_S = 0.02
"""A file that looks the same after this time isn't being written. The clock by which a kernel dates
files ticks every 1 to 10 ms: so whatever is written after that shows."""
PAUSES_MAX = 50
"""For all files of a copy. What is still written to then, like a log, is copied as it is."""
LOCK_LIMIT_S = 1.0
"""For all databases of a copy that their app keeps locked. A commit takes far less."""

SPARE_BYTES = 16 * 1024 * 1024
"""Stay free for the app that is shown: it writes to the same memory."""

Look = tuple[Facts | None, ...]
"""Size, time and inode of a file, and of its `-wal` and `-journal` if there are any."""


class AppData:
    """The files that an app wrote, and their copies in the folder of its next version.

    The methods block. They leave out what vanishes or can't be read.
    """

    def __init__(
        self,
        folder: str,
        sources: Mapping[str, Facts],
        *,
        pause: Callable[[float], None] = time.sleep,
        free_bytes: Callable[[str], int] = lambda path: shutil.disk_usage(path).free,
    ) -> None:
        """`sources` are the files below `folder` that the app was started from, as they were."""
        self._folder = folder
        self._sources = sources
        self._sleep = pause
        self._free_bytes = free_bytes  # in the file system of a path
        self._pauses_left = 0
        self.lock_left_s = 0.0  # of LOCK_LIMIT_S in the copy that is being made
        self._target = ""
        self._kept: set[str] = set()
        self._delivered: dict[str, str] = {}  # digests of the files of its bundle
        self._undone: set[str] = set()  # files of the bundle that the next version has as they were
        self._copies: dict[str, Look | None] = {}  # None: written to while it was copied

    def note_bundle(self, folder: str) -> None:
        """Note what the app's own bundle has: `folder` holds it, and the model hasn't begun."""
        self._delivered = {path: _digest(os.path.join(folder, path)) for path in self._sources}

    def check_room(self) -> None:
        """Raises OSError (ENOSPC) if a copy of all files wouldn't fit beside them."""
        self._check_room(sum(map(_size, self._look().values())))

    def copy(self, target: str, kept: Collection[str]) -> None:
        """Copy the files to the folder `target`, but for those that it brings itself (`kept`).

        Raises OSError if there is no room (ENOSPC, mostly before anything is copied), or if the app
        made more than FILES_MAX files.
        """
        self._target, self._copies = target, {}
        self._kept = {parent for path in kept for parent in _with_parents(path)}
        self._undone = {
            path
            for path in self._sources.keys() & set(kept)
            if _digest(os.path.join(target, path)) == self._delivered.get(path)
        }
        self.update()

    def update(self) -> None:
        """Make the copies like the files are now. Raises OSError like `copy`."""
        before = self._look()
        if before == self._copies:
            return
        self._pauses_left, self.lock_left_s = PAUSES_MAX, LOCK_LIMIT_S
        self._pause()
        looks = self._look()
        if len(looks) > FILES_MAX:
            raise OSError(errno.EMFILE, f"the app made more than {FILES_MAX} files")
        changed = {path: look for path, look in looks.items() if look != self._copies.get(path)}
        for path in self._copies.keys() - (looks.keys() - changed.keys()):
            self._drop(path)
        self._check_room(sum(map(_size, changed.values())))
        for path, look in changed.items():
            self._copy(path, look, is_still=look == before.get(path))

    def has_changed(self) -> bool:
        """Whether the app has written since, or while, the copies were made."""
        return self._look() != self._copies

    def _check_room(self, size: int) -> None:
        if size and size + SPARE_BYTES > self._free_bytes(self._folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._folder)

    def _look(self) -> dict[str, Look]:
        """All files that are to be copied."""
        stats = {path: facts_of(details) for path, details in walk_files(self._folder)}
        return {
            path: (stats[path], *(stats.get(path + suffix) for suffix in LOOKED_AT))
            for path in stats
            if self._is_data(path, stats[path]) and not self._is_beside(path)
        }

    def _is_data(self, path: str, facts: Facts) -> bool:
        """Whether a file is to be copied."""
        if path not in self._sources:
            return path not in self._kept
        if facts == self._sources[path]:
            return False
        is_free = path not in self._kept or path in self._undone
        return is_free or _is_database(self._source(path))

    def _is_beside(self, path: str) -> bool:
        """Whether a file belongs to a database."""
        return any(
            path.endswith(suffix) and _is_database(self._source(path.removesuffix(suffix)))
            for suffix in SIDE_SUFFIXES
        )

    def _copy(self, path: str, look: Look, *, is_still: bool) -> None:
        target = os.path.join(self._target, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if self._copy_database(self._source(path), target):
            # A commit from now on shows, unless the last one is as young as this look.
            self._copies[path] = look if is_still else None
            return
        self._copy_still(path, look, is_still=is_still)

    def _copy_database(self, source: str, target: str) -> bool:
        """False if it is none, or if SQLite can't copy it."""
        if not _is_database(source):
            return False
        beside = [source + suffix for suffix in SIDE_SUFFIXES]
        if any(os.path.lexists(path) and _facts_at(path) is None for path in beside):
            return False  # SQLite would wait for the other end of a pipe, for ever
        # Loaded now: most sandboxes never see a database.
        sqlite_copy = importlib.import_module("agent.jobs.sqlite_copy")
        began_at_s = time.monotonic()
        copied: bool = sqlite_copy.copy_database(source, target, lock_limit_s=self.lock_left_s)
        if not copied:
            self.lock_left_s = max(0.0, self.lock_left_s - (time.monotonic() - began_at_s))
        return copied

    def _copy_still(self, path: str, look: Look, *, is_still: bool) -> None:
        """Copy a file until nobody wrote to it meanwhile.

        With a database that SQLite can't copy, because its app keeps it locked, goes its journal.
        """
        self._copies[path] = None
        while True:
            self._copy_file(path)
            if _is_database(self._source(path)):
                for suffix in LOOKED_AT:
                    self._copy_file(path + suffix)
            after = self._look_at(path)
            if after is None:
                self._drop(path)
                return
            self._copies[path] = look if is_still and after == look else None
            if self._copies[path] is not None or not self._pauses_left:
                return
            self._pause()
            look, is_still = after, after == self._look_at(path)

    def _pause(self) -> None:
        self._pauses_left -= 1
        self._sleep(STILL_S)

    def _copy_file(self, path: str) -> None:
        target = os.path.join(self._target, path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        try:
            source = open_plain(self._source(path))
        except OSError:
            return
        with source, open(target, "xb") as sink:
            shutil.copyfileobj(source, sink)

    def _drop(self, path: str) -> None:
        """Remove a copy, if there is one."""
        if path in self._copies:
            del self._copies[path]
            for suffix in ("", *SIDE_SUFFIXES):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self._target, path + suffix))

    def _look_at(self, path: str) -> Look | None:
        """None if the file is gone."""
        facts = [_facts_at(self._source(path + suffix)) for suffix in ("", *LOOKED_AT)]
        return None if facts[0] is None else tuple(facts)

    def _source(self, path: str) -> str:
        return os.path.join(self._folder, path)


def _with_parents(path: str) -> Iterator[str]:
    while path:
        yield path
        path = os.path.dirname(path)


def _size(look: Look) -> int:
    return sum(facts[0] for facts in look if facts is not None)


def _digest(path: str) -> str:
    """Of a file's bytes; "" if it can't be read."""
    try:
        with open_plain(path) as source:
            return archive.sha256_hex(source.read())
    except OSError:
        return ""


def _facts_at(path: str) -> Facts | None:
    try:
        details = os.lstat(path)
    except OSError:
        return None
    return facts_of(details) if stat.S_ISREG(details.st_mode) else None


def _is_database(path: str) -> bool:
    try:
        with open_plain(path) as source:
            return source.read(len(SQLITE_HEADER)) == SQLITE_HEADER
    except OSError:
        return False
