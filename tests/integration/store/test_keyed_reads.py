"""Lookups on the event loop: they wait for nobody, and nothing else passes for one."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.adapters import sql_store
from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import errors, ids
from orchestrator.ports import AuditEntry
from tests.fakes import samples
from tests.fakes.samples import NOW


@pytest.fixture
def path(migrated_sqlite: Path, tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    shutil.copy(migrated_sqlite, path)
    return path


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    opened = sql_store.open_store(f"sqlite:///{path}", pool_size=1)
    try:
        yield opened
    finally:
        opened.close()


def test_a_database_server_can_not_be_asked_like_this(empty_postgres_url: str) -> None:
    store = sql_store.open_store(empty_postgres_url)
    try:
        with pytest.raises(errors.WouldBlock), store.keyed_reads():
            pass
    finally:
        store.close()


def test_a_lookup_waits_neither_for_a_writer_nor_for_a_connection(
    store: SqlStore, path: Path
) -> None:
    session = store.sessions.add(samples.session(), None, max_active=9)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE sessions SET attempt = 2")
    with store._database.read(), store.keyed_reads():  # the pool's one connection is taken
        assert store.sessions.get(session.id) == session
        with pytest.raises(errors.NotFound):
            store.sessions.get(ids.new_session_id())
    writer.execute("COMMIT")
    writer.close()
    with store.keyed_reads():
        assert store.sessions.get(session.id).attempt == 2, "each lookup sees what is committed"


CALLS: dict[str, Callable[[SqlStore], object]] = {
    "write": lambda store: store.audit.add(AuditEntry(at=NOW, actor="a", action="b", subject="c")),
    "count": lambda store: store.sessions.demand(NOW),
    "list": lambda store: store.sessions.list(),
    "aggregate": lambda store: store.usage.output_tokens(changes=False, since=NOW, limit=9),
}


@pytest.mark.parametrize("name", CALLS)
def test_everything_else_is_sent_to_a_thread(store: SqlStore, name: str) -> None:
    with pytest.raises(errors.WouldBlock), store.keyed_reads():
        CALLS[name](store)
    CALLS[name](store)


def test_its_connection_can_not_write(store: SqlStore) -> None:
    with store.keyed_reads():
        connection = store._database._own.connection
        assert connection is not None
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM sessions")
