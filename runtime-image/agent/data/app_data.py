"""Decides what an app has made at run time, such as its database, for its next version to have.

`workshop.py` copies it for each try of that version, `handover.py` once more when that version
replaces the app. A version is only source; the data of its users must survive a change: files,
folders and links, with their modes and times.

A file of the bundle that the app has written to is data, too: a list that it was delivered with, or
a database that was made while the model tried the app. It stays the users', unless the model has
changed it for the next version. A database stays theirs even then: a command may have opened it.
A file of the bundle that the app has deleted stays away, on the same condition.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass

from agent.data.copies import SIDE_SUFFIXES, DataCopies
from agent.data.entries import is_database
from agent.data.folder_tree import FolderTree, is_gone
from agent.data.survey import JOURNALS, Look, Survey, survey
from orchestrator.contract import archive
from orchestrator.contract.trees import Facts

SPARE_BYTES = 16 * 1024 * 1024
"""Stay free for the app that is shown: it writes to the same memory."""
REPLACED = "the new version has its own"
"""Why something of the app's doesn't go with it."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What the next version is to have of the app's folder."""

    looks: Mapping[str, Look]  # what is copied
    removed: Set[str]  # files of its bundle that it must not have
    room_bytes: Mapping[str, int]  # that each file of the folder takes
    left_out: Mapping[str, str]  # what can't go with it, and why


class AppData:
    """What an app made, and its copies in the folder of its next version.

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
        self._source_folders = _folders_of(sources)
        self._sleep = pause
        self._free_bytes = free_bytes  # in the file system of a path
        self._delivered: dict[str, str] = {}  # digests of the files of its bundle
        self._kept: Set[str] = frozenset()  # files of the next version's bundle
        self._kept_folders: Set[str] = frozenset()
        self._undone: Set[str] = frozenset()  # those of them that are as they were delivered
        self._copies = DataCopies(folder, "", frozenset(), pause)
        self._left_out: Mapping[str, str] = {}

    @property
    def left_out(self) -> dict[str, str]:
        """What the last copy is without, and why, by path."""
        return {**self._left_out, **self._copies.unread}

    @property
    def lock_left_s(self) -> float:
        """Of the time that the last copy had for databases that were locked."""
        return self._copies.lock_left_s

    def note_bundle(self, folder: str) -> None:
        """Note what the app's own bundle has: `folder` holds it, and the model hasn't begun."""
        with FolderTree(folder) as tree:
            self._delivered = {path: _digest(tree, path) for path in self._sources}

    def check_room(self) -> None:
        """Raises OSError if a copy of everything wouldn't fit beside it (ENOSPC, EDQUOT)."""
        with FolderTree(self._folder) as tree:
            data = self._look(tree)
        self._check_room(data, data.looks)

    def copy(self, target: str, kept: Collection[str]) -> None:
        """Copy the data to the folder `target`, but for files that it brings itself (`kept`).

        Raises OSError if there is no room (ENOSPC, mostly before anything is copied), if there is
        more than anybody copies (EDQUOT), or if something can't be read or written.
        """
        self._kept = frozenset(kept)
        with FolderTree(target) as tree:
            self._undone = {
                path
                for path in self._sources.keys() & self._kept
                if _digest(tree, path) == self._delivered.get(path)
            }
        self._kept_folders = _folders_of(self._kept)
        self._copies = DataCopies(self._folder, target, self._kept_folders, self._sleep)
        self.update()

    def update(self) -> None:
        """Make the copies like the data is now. Raises OSError like `copy`."""
        copies = self._copies
        with FolderTree(self._folder) as source:
            data = self._look(source)
            self._left_out = data.left_out
            if self._is_copied(data):
                return
            with copies.changing(source) as target:
                copies.pause()
                copies.remove_own(target, data.removed)
                copies.drop(target, self._outdated(data))
                changed = [
                    path for path, look in data.looks.items() if look != copies.looks.get(path)
                ]
                self._check_room(data, changed)
                for path in changed:
                    copies.copy(source, target, path, data.looks[path])

    def has_changed(self) -> bool:
        """Whether the app has written since, or while, the copies were made."""
        try:
            with FolderTree(self._folder) as source:
                return not self._is_copied(self._look(source))
        except OSError:
            return True  # `update` says why it can't be read

    def _is_copied(self, data: Data) -> bool:
        return data.looks == self._copies.looks and data.removed <= self._copies.removed

    def _outdated(self, data: Data) -> list[str]:
        """Copies to be removed: of what is gone, or has changed. Folders only get another mode."""
        outdated = []
        for path, copied in self._copies.looks.items():
            look = data.looks.get(path)
            if look is None or look != copied:
                is_same_folder = look and copied and look.is_folder and copied.is_folder
                if not is_same_folder:
                    outdated.append(path)
        return outdated

    def _check_room(self, data: Data, paths: Collection[str]) -> None:
        size = 0
        counted: set[int] = set()  # inodes that have several names
        for path in paths:
            look = data.looks[path]
            if look.inode not in counted:
                size += data.room_bytes.get(path, 0)
            if look.links > 1:
                counted.add(look.inode)
            if look.journals:
                size += sum(data.room_bytes.get(path + suffix, 0) for suffix in JOURNALS)
        if size and size + SPARE_BYTES > self._free_bytes(self._folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._folder)

    def _look(self, tree: FolderTree) -> Data:
        seen = survey(tree)
        removed = self._deleted(tree, seen)
        own = self._kept - removed
        own_folders = _folders_of(own)
        left_out = dict(seen.left_out)
        looks, empty = {}, set()
        for path, look in seen.looks.items():
            if look.is_folder:
                if path not in own:
                    looks[path] = look
                    if path in self._source_folders and path not in self._kept_folders:
                        empty.add(path)
                continue
            is_delivered = path in self._sources and self._is_delivered(path, look)
            if is_delivered or (path.endswith(SIDE_SUFFIXES) and _is_beside(tree, path, seen)):
                continue
            if path not in own_folders and (path not in own or self._may_go(tree, path)):
                looks[path] = look
            else:
                left_out[path] = REPLACED
        if empty:  # a folder that the change removes stays only with what is in it
            empty -= _folders_of(looks.keys() - empty)
            looks = {path: look for path, look in looks.items() if path not in empty}
        return Data(looks=looks, removed=removed, room_bytes=seen.room_bytes, left_out=left_out)

    def _deleted(self, tree: FolderTree, seen: Survey) -> frozenset[str]:
        """Files of the next version's bundle that the app was delivered with and has deleted."""
        if not seen.looks:  # all of them: then it didn't mean its data
            return frozenset()
        missing = (path for path in self._undone if _kind_of(seen, path) != stat.S_IFREG)
        return frozenset(path for path in missing if _is_no_file(tree, path))

    def _is_delivered(self, path: str, look: Look) -> bool:
        """Whether the next version has a file as the app has it, without a copy."""
        is_as_delivered = look.is_file and self._sources[path] == look.facts
        return is_as_delivered and path not in self._copies.removed

    def _may_go(self, tree: FolderTree, path: str) -> bool:
        """Whether the next version's own file leaves its place to what the app has there."""
        return path in self._undone or (path in self._sources and is_database(tree, path))


def _is_beside(tree: FolderTree, path: str, seen: Survey) -> bool:
    """Whether a file belongs to a database."""
    for suffix in SIDE_SUFFIXES:
        database = path.removesuffix(suffix)
        if database != path and database in seen.looks and is_database(tree, database):
            return True
    return False


def _kind_of(seen: Survey, path: str) -> int:
    look = seen.looks.get(path)
    return 0 if look is None else stat.S_IFMT(look.mode)


def _is_no_file(tree: FolderTree, path: str) -> bool:
    """False also if nobody may look."""
    try:
        return not stat.S_ISREG(tree.stat(path).st_mode)
    except OSError as error:
        return is_gone(error)


def _folders_of(paths: Iterable[str]) -> set[str]:
    """All folders that these are in, but for the root."""
    folders: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders


def _digest(tree: FolderTree, path: str) -> str:
    """Of a file's bytes; "" if it can't be read."""
    try:
        with open(tree.open_file(path), "rb") as source:
            return archive.sha256_hex(source.read())
    except OSError:
        return ""
