"""The schema: migrations and metadata agree, also with concurrent and failing migrations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.engine import Engine

from orchestrator.adapters import sql_store
from orchestrator.adapters.sql_store import SqlStore, schema, upgrade
from orchestrator.adapters.sql_store.database import engine_for, parse
from orchestrator.domain import errors
from tests.contract.store.steps import add_session

ROOT = Path(__file__).parents[3]


@contextmanager
def open_engine(url: str) -> Iterator[Engine]:
    engine = engine_for(parse(url), pool_size=0)
    try:
        yield engine
    finally:
        engine.dispose()


def definitions(connection: sa.Connection) -> set[str]:
    """The definition of every table, index and constraint, as the database prints it."""
    if connection.dialect.name == "sqlite":
        query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%'"
    else:
        query = (
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
            " UNION ALL SELECT conname || ' ' || conrelid::regclass || ' '"
            " || pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = 'public'::regnamespace"
            " UNION ALL SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable,"
            " column_default) FROM information_schema.columns WHERE table_schema = 'public'"
        )
    rows = connection.exec_driver_sql(query).scalars()
    return {" ".join(row.split()) for row in rows if "alembic_version" not in row}


def test_migrations_and_metadata_agree(store_url: str) -> None:
    with open_engine(store_url) as engine, engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == "0015"
        assert compare_metadata(context, schema.metadata) == []


def test_migrations_and_metadata_create_identical_definitions(empty_url: str) -> None:
    upgrade.migrate(empty_url)
    with open_engine(empty_url) as engine, engine.connect() as connection:
        migrated = definitions(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
        schema.metadata.drop_all(connection)
        assert definitions(connection) == set()
        schema.metadata.create_all(connection)
        assert definitions(connection) == migrated
        assert len(migrated) > len(schema.metadata.tables)


def test_migrating_again_changes_nothing(store: SqlStore, store_url: str) -> None:
    session = add_session(store)
    upgrade.migrate(store_url)
    assert store.sessions.get(session.id) == session


def test_concurrent_processes_migrate_once(empty_url: str) -> None:
    program = (
        "import sys; from orchestrator.adapters.sql_store import upgrade;"
        " upgrade.migrate(sys.argv[1])"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, empty_url], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    outcomes = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
    assert [code for _, code in outcomes] == [0] * 4, [error for error, _ in outcomes]
    store = sql_store.open_store(empty_url)
    try:
        add_session(store)
    finally:
        store.close()


def test_a_migration_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    if empty_url.startswith("sqlite"):
        Path(empty_url.removeprefix("sqlite:///")).parent.mkdir()
    with open_engine(empty_url) as engine, engine.connect() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE leases (name TEXT)"
        )  # the last table that it creates
        before = definitions(connection)
    with pytest.raises((errors.SpawnError, sa.exc.SQLAlchemyError)):
        upgrade.migrate(empty_url)
    with open_engine(empty_url) as engine, engine.connect() as connection:
        assert definitions(connection) == before


def test_sqlite_readers_never_wait_and_foreign_keys_hold(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    upgrade.migrate(url)
    with open_engine(url) as engine, engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
    }
