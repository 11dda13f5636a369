"""Looks at all that is in an app's folder. Used by `app_data.py` and `copies.py`."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.data.folder_tree import FolderTree, is_gone
from orchestrator.contract.trees import SKIPPED_FOLDERS, Facts, facts_of

ENTRIES_MAX = 60_000
"""Files, folders and links of an app that can be changed. The last look at so many, while visitors
wait, takes 0.2 s of processor time."""
PATH_MAX_CHARS = 1_000
"""Of a path that is looked at."""
BLOCK_BYTES = 512
"""The unit of `st_blocks`, whatever the file system: https://man7.org/linux/man-pages/man3/stat.3type.html."""
DATABASE_MIN_BYTES = 512
"""A page of SQLite has no less: https://www.sqlite.org/fileformat2.html."""
JOURNALS = ("-wal", "-journal")
"""Files beside a database that hold what was written to it."""
SPECIAL = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe"}


class Look(NamedTuple):
    """What differs once somebody has written to a file or link, or has put another in its place.

    Of a folder it is the mode alone: its time changes with whatever is made in it.
    """

    mode: int
    size_bytes: int = 0
    changed_ns: int = 0  # also when mode, times or links changed
    inode: int = 0  # of a folder 0
    links: int = 1  # names of this inode
    journals: tuple[Facts | None, ...] = ()  # of a file that may be a database; () if none exists

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def facts(self) -> Facts:
        return self.size_bytes, self.changed_ns, self.inode


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All that is below a folder, but for caches. A folder comes before what is in it."""

    looks: dict[str, Look] = field(default_factory=dict)
    room_bytes: dict[str, int] = field(
        default_factory=dict
    )  # that files and links take, without holes
    left_out: dict[str, str] = field(default_factory=dict)  # what isn't data or can't be read: why


def survey(tree: FolderTree) -> Survey:
    """Raises OSError (EDQUOT) if there is more than ENTRIES_MAX."""
    seen = Survey()
    waiting = [""]
    while waiting:
        parent = waiting.pop()
        try:
            with os.scandir(tree.folder(parent)) as entries:
                waiting += _note(seen, f"{parent}/" if parent else "", entries)
        except PermissionError as error:
            if not parent:
                raise
            seen.left_out[parent] = str(error.strerror)
        except OSError as error:
            if not parent or not is_gone(error):
                raise
    _add_journals(seen)
    return seen


def look_at(tree: FolderTree, path: str) -> Look | None:
    """None if it is gone or locked away, or is nothing that can be copied. Raises OSError."""
    details = _details(tree, path)
    look = None if details is None else _look_of(details)
    if look is None or not look.is_file or look.size_bytes < DATABASE_MIN_BYTES:
        return look
    journals = tuple(_facts_at(tree, path + suffix) for suffix in JOURNALS)
    return look._replace(journals=journals) if any(journals) else look


def _note(seen: Survey, prefix: str, entries: Iterable[os.DirEntry[str]]) -> list[str]:
    """Note what a folder has, and return the folders in it. As short as can be: visitors wait."""
    folders = []
    for entry in entries:
        path = prefix + entry.name
        if len(seen.looks) + len(seen.left_out) >= ENTRIES_MAX:
            message = f"the app has more than {ENTRIES_MAX} files and folders"
            raise OSError(errno.EDQUOT, message)
        if len(path) > PATH_MAX_CHARS:
            seen.left_out[path] = "its path is too long"
            continue
        try:
            details = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        look = _look_of(details)
        if look is None:
            seen.left_out[path] = SPECIAL.get(stat.S_IFMT(details.st_mode), "a device")
        elif look.inode:
            seen.looks[path] = look
            seen.room_bytes[path] = details.st_blocks * BLOCK_BYTES
        elif entry.name not in SKIPPED_FOLDERS:
            seen.looks[path] = look
            folders.append(path)
    return folders


def _look_of(details: os.stat_result) -> Look | None:
    mode = details.st_mode
    if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
        return Look(mode, *facts_of(details), details.st_nlink)
    return Look(mode) if stat.S_ISDIR(mode) else None


def _add_journals(seen: Survey) -> None:
    for suffix in JOURNALS:
        for path in [path for path in seen.looks if path.endswith(suffix)]:
            database = path.removesuffix(suffix)
            look = seen.looks.get(database)
            if look is not None and look.is_file and look.size_bytes >= DATABASE_MIN_BYTES:
                beside = [seen.looks.get(database + suffix) for suffix in JOURNALS]
                journals = tuple(
                    other.facts if other is not None and other.is_file else None for other in beside
                )
                if any(journals):
                    seen.looks[database] = look._replace(journals=journals)


def _facts_at(tree: FolderTree, path: str) -> Facts | None:
    details = _details(tree, path)
    return facts_of(details) if details is not None and stat.S_ISREG(details.st_mode) else None


def _details(tree: FolderTree, path: str) -> os.stat_result | None:
    try:
        return tree.stat(path)
    except OSError as error:
        if is_gone(error) or isinstance(error, PermissionError):
            return None
        raise
