"""Copies a SQLite database that its app is using. Loaded by `app_data.py` with the first database.

SQLite's own backup reads one moment of the database, whatever its journal mode: a copy of its files
would mix several. See https://www.sqlite.org/backup.html.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from urllib.parse import quote

LOCK_PAUSE_S = 0.01


def copy_database(source: str, target: str, *, lock_limit_s: float) -> bool:
    """Copy all that is committed to the new file `target`.

    False if SQLite can't read or write them, or if the app kept `source` locked for `lock_limit_s`;
    then there is no `target`.
    """
    end_s = time.monotonic() + lock_limit_s

    def check_time(status: int, _remaining: int, _pages: int) -> None:
        if status != sqlite3.SQLITE_DONE and time.monotonic() > end_s:
            raise TimeoutError

    # `rw`: to read a database whose app was killed, SQLite has to undo its last transaction.
    name = f"file:{quote(os.fsencode(source))}?mode=rw"
    try:
        with (
            contextlib.closing(sqlite3.connect(name, uri=True, timeout=0)) as reader,
            contextlib.closing(sqlite3.connect(target, isolation_level=None)) as writer,
        ):
            # Nobody else has the target, and a copy that wasn't finished is thrown away.
            writer.execute("PRAGMA journal_mode=OFF")
            writer.execute("PRAGMA synchronous=OFF")
            # All pages in one step: between two, a write of the app would begin the copy anew.
            reader.backup(writer, pages=-1, sleep=LOCK_PAUSE_S, progress=check_time)
    except (sqlite3.Error, TimeoutError):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        return False
    return True
