"""The store when its database is away, slow, or has an unusable URL."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from orchestrator.adapters import sql_store
from orchestrator.adapters.sql_store import SqlStore, upgrade
from orchestrator.adapters.sql_store.database import Database
from orchestrator.domain import errors
from tests.conftest import execute, fresh_database
from tests.contract.store.steps import add_session, provisioning
from tests.fakes import samples
from tests.fakes.samples import NOW

KILL_OTHER_CONNECTIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def test_a_store_answers_a_ping(store: SqlStore) -> None:
    store.ping()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////nowhere/at/all/store.db",
        "postgresql://spawn@127.0.0.1:1/spawn",  # nothing listens on port 1
    ],
)
def test_a_database_that_is_away_is_a_temporary_error(url: str) -> None:
    store = sql_store.open_store(url)
    try:
        for call in (
            store.ping,
            store.hosts.list,
            lambda: store.sessions.get(samples.session().id),
            lambda: add_session(store),
        ):
            with pytest.raises(errors.Temporary) as caught:
                call()
            assert caught.value.code == "database_unavailable"
    finally:
        store.close()


def test_a_database_that_its_disk_has_damaged_is_a_temporary_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/spawn.db"
    upgrade.migrate(url)
    with closing(sql_store.open_store(url)) as store:
        store.hosts.put(samples.host())
    path = tmp_path / "spawn.db"
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    with closing(sql_store.open_store(url)) as store:
        for call in (store.hosts.list, lambda: store.hosts.put(samples.host())):
            with pytest.raises(errors.StorageUnavailable, match="the database can't be"):
                call()


def test_a_database_that_has_become_read_only_is_a_temporary_error(
    store: SqlStore, store_url: str
) -> None:
    if store_url.startswith("sqlite"):
        read_only_url = store_url.replace("sqlite:///", "sqlite:///file:") + "?mode=ro&uri=true"
    else:
        read_only_url = store_url + "&options=-c%20default_transaction_read_only%3Don"
    standby = sql_store.open_store(read_only_url)
    try:
        assert standby.hosts.list() == store.hosts.list()
        with pytest.raises(errors.Temporary) as caught:
            add_session(standby)
        is_sqlite = store_url.startswith("sqlite")
        code = "storage_unavailable" if is_sqlite else "database_unavailable"
        assert caught.value.code == code
    finally:
        standby.close()


def test_migrating_a_database_that_is_away_is_a_temporary_error() -> None:
    with pytest.raises(errors.Temporary) as caught:
        upgrade.migrate("postgresql://spawn@127.0.0.1:1/spawn")
    assert caught.value.code == "database_unavailable"


def test_a_writer_that_waits_too_long_gets_a_temporary_error(
    store: SqlStore, store_url: str
) -> None:
    session = add_session(store)
    event.listen(store._database._engine, "checkout", _shorten_lock_timeout)
    other = sql_store.open_store(store_url)
    try:
        with other._database.write() as connection:
            connection.exec_driver_sql("UPDATE sessions SET attempt = attempt")
            with pytest.raises(errors.Temporary) as caught:
                store.sessions.save(provisioning(session))
            assert caught.value.code == "database_unavailable"
            assert store.sessions.get(session.id) == session, "readers don't wait for writers"
    finally:
        other.close()
    store.sessions.save(provisioning(session))


def _shorten_lock_timeout(connection: sqlite3.Connection, *_rest: object) -> None:
    with closing(connection.cursor()) as cursor:
        if isinstance(connection, sqlite3.Connection):
            cursor.execute("PRAGMA busy_timeout = 20")
        else:
            cursor.execute("SET lock_timeout = 20")


def test_an_exception_rolls_back_the_transaction_and_frees_its_locks(
    store: SqlStore, store_url: str
) -> None:
    session = add_session(store)
    with suppress(KeyError), store._database.write() as connection:
        connection.exec_driver_sql("UPDATE sessions SET attempt = 99")
        raise KeyError("something of ours went wrong")
    other = sql_store.open_store(store_url)
    try:
        event.listen(other._database._engine, "checkout", _shorten_lock_timeout)
        assert other.sessions.save(session).attempt == session.attempt
    finally:
        other.close()


def test_a_store_works_again_after_its_connections_were_cut(
    postgres_url: str, migrated_postgres: str
) -> None:
    with fresh_database(postgres_url, migrated_postgres) as url:
        store = sql_store.open_store(url)
        try:
            session = add_session(store)
            execute(url, KILL_OTHER_CONNECTIONS)
            assert store.sessions.get(session.id) == session, "a look-up retries by itself"
            execute(url, KILL_OTHER_CONNECTIONS)
            with pytest.raises(errors.Temporary) as caught:
                store.sessions.save(session)
            assert caught.value.code == "database_unavailable"
            assert store.sessions.save(session).revision == 1
        finally:
            store.close()


def test_callers_queue_for_connections_and_get_them(store_url: str) -> None:
    store = sql_store.open_store(store_url, pool_size=1)
    try:
        for _ in range(3):
            add_session(store)
            assert store.sandboxes.claim(provisioning(samples.session()), NOW) is None
        assert len(store.sessions.list()) == 3
    finally:
        store.close()


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://a@b/c", "not a url", "oracle+x://a"]
)
def test_an_unsupported_url_is_refused(url: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        sql_store.open_store(url)
    assert caught.value.detail["field"] == "database_url"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_usual_scheme_of_postgresql_is_accepted(
    postgres_url: str, migrated_postgres: str, scheme: str
) -> None:
    store = sql_store.open_store(postgres_url.replace("postgresql+psycopg", scheme))
    try:
        store.ping()
    finally:
        store.close()


def test_errors_contain_neither_prompts_nor_hashes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    upgrade.migrate(url)
    store = sql_store.open_store(url)
    try:
        database: Database = store._database
        with database.write() as connection:
            connection.execute(sa.text("DROP TABLE events"))
        with pytest.raises(errors.SpawnError) as caught:
            add_session(store, prompt="a very private prompt")
        chain = f"{caught.value} {caught.value.__cause__}"
        assert "private" not in chain
    finally:
        store.close()
