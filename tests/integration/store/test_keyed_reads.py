"""Lookups on the event loop: they wait for nobody, and nothing else passes for one."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from orchestrator.adapters import sql_store
from orchestrator.adapters.sql_store import SqlStore, admission, codec, schema
from orchestrator.domain import errors, ids
from orchestrator.domain.pool.host import Wish
from orchestrator.ports import AuditEntry
from tests.fakes import samples
from tests.fakes.samples import NOW, later

WISH = Wish(region="eu")


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


def test_the_place_in_the_queue_is_found_like_this(store: SqlStore) -> None:
    for number in range(3):
        store.sessions.add(samples.session(created_at=later(number)), None, max_active=9)
    last = samples.session(created_at=later(9))
    with store.keyed_reads():
        assert store.sessions.count_ahead_of(last, later(9)) == 3
        assert store.sessions.count_ahead_of(last, NOW) == 1, "the others are not due"
        with pytest.raises(errors.WouldBlock):  # it asks which hosts there are
            store.sessions.count_ahead_of(replace(last, wish=WISH), later(9))
    assert store.sessions.count_ahead_of(replace(last, wish=WISH), later(9)) == 0


def test_a_place_behind_somebody_choosy_is_counted_in_a_thread(store: SqlStore) -> None:
    store.sessions.add(samples.session(), None, max_active=9)
    store.sessions.add(samples.session(wish=WISH), None, max_active=9)
    last = samples.session(created_at=later(9))
    with pytest.raises(errors.WouldBlock), store.keyed_reads():
        store.sessions.count_ahead_of(last, later(9))
    assert store.sessions.count_ahead_of(last, later(9)) == 1


def test_a_place_far_back_is_counted_in_a_thread(store: SqlStore) -> None:
    last = samples.session(created_at=later(9))
    waiting = [codec.session_values(samples.session()) for _ in range(admission.AT_ONCE_MAX)]
    with store._database.write() as connection:
        connection.execute(sa.insert(schema.sessions), waiting[1:])
    with store.keyed_reads():
        assert store.sessions.count_ahead_of(last, later(9)) == admission.AT_ONCE_MAX - 1
    with store._database.write() as connection:
        connection.execute(sa.insert(schema.sessions), waiting[:1])
    with pytest.raises(errors.WouldBlock), store.keyed_reads():
        store.sessions.count_ahead_of(last, later(9))
    assert store.sessions.count_ahead_of(last, later(9)) == admission.AT_ONCE_MAX


def test_its_connection_can_not_write(store: SqlStore) -> None:
    with store.keyed_reads():
        connection = store._database._own.connection
        assert connection is not None
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM sessions")
