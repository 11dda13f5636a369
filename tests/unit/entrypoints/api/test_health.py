"""/ready tells what is wrong, also when that comes in the middle of its checks."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.unit.entrypoints.api.conftest import Api


def test_a_database_that_fails_in_some_queries_only_is_named_by_ready(
    visitor: Api, tmp_path: Path
) -> None:
    """As on a disk that fails: some tables are still in memory."""
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        connection.execute("ALTER TABLE hosts RENAME TO lost")
    status, answer = visitor("GET", "/ready")
    assert (status, answer["ready"]) == (503, False)
    assert not answer["checks"]["database"]["ok"]
    assert "hosts" in answer["checks"]["database"]["detail"]
