"""Copies a SQLite database that its app is using. Loaded with the first one, by `copies.py`.

SQLite's own backup reads one moment of the database, whatever its journal mode: a copy of its files
would mix several. See https://www.sqlite.org/backup.html.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import NamedTuple
from urllib.parse import quote

LOCK_PAUSE_S = 0.01


class Database(NamedTuple):
    """A file that SQLite is to open, and no other one: it takes no descriptor, only a path."""

    path: str
    device: int
    inode: int


def copy_database(source: Database, target: Database, *, lock_limit_s: float) -> bool:
    """Copy all that is committed to the empty file `target`.

    False if SQLite can't read or write them, if their paths lead to other files by now, or if the
    app kept `source` locked for `lock_limit_s`. What `target` holds then is of no use.
    """
    end_s = time.monotonic() + lock_limit_s

    def check_time(status: int, _remaining: int, _pages: int) -> None:
        if status != sqlite3.SQLITE_DONE and time.monotonic() > end_s:
            raise TimeoutError

    # `rw`: to read a database whose app was killed, SQLite has to undo its last transaction.
    name = f"file:{quote(os.fsencode(source.path))}?mode=rw"
    try:
        with (
            contextlib.closing(sqlite3.connect(name, uri=True, timeout=0)) as reader,
            contextlib.closing(sqlite3.connect(target.path, isolation_level=None)) as writer,
        ):
            if not (_is_open(source) and _is_open(target)):
                return False
            # Nobody else has the target, and a copy that wasn't finished is thrown away.
            writer.execute("PRAGMA journal_mode=OFF")
            writer.execute("PRAGMA synchronous=OFF")
            # All pages in one step: between two, a write of the app would begin the copy anew.
            reader.backup(writer, pages=-1, sleep=LOCK_PAUSE_S, progress=check_time)
    except (sqlite3.Error, TimeoutError):
        return False
    return True


def _is_open(database: Database) -> bool:
    """Whether SQLite, which opens a file at once, has opened this one."""
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # others come and go meanwhile
            details = os.fstat(int(number))
            if (details.st_dev, details.st_ino) == (database.device, database.inode):
                return True
    return False
