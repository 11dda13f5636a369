"""The schema: that migrations and metadata agree, and that indexes serve what is asked often."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from orchestrator.adapters import sql_store
from orchestrator.adapters.sql_store import SqlStore, codec, schema, upgrade
from orchestrator.adapters.sql_store.database import engine_for, parse
from orchestrator.domain import errors, ids
from orchestrator.domain.session import SessionState
from tests.contract.store_steps import add_session
from tests.fakes import samples
from tests.fakes.samples import NOW, USER, later

ROOT = Path(__file__).parents[2]
ENDED_ROWS = 1500


@contextmanager
def engine(url: str) -> Iterator[Engine]:
    opened = engine_for(parse(url), pool_size=0)
    try:
        yield opened
    finally:
        opened.dispose()


def definitions(connection: sa.Connection) -> set[str]:
    """Every table, index and constraint as the database itself spells it."""
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
    with engine(store_url) as opened, opened.connect() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == "0003"
        assert compare_metadata(context, schema.metadata) == []


def test_migrations_make_what_the_metadata_says_to_the_letter(empty_url: str) -> None:
    upgrade.migrate(empty_url)
    with engine(empty_url) as opened, opened.connect() as connection:
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


def test_processes_that_start_at_once_migrate_once(empty_url: str) -> None:
    program = (
        "import sys; from orchestrator.adapters.sql_store import upgrade;"
        " upgrade.migrate(sys.argv[1])"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, empty_url], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    outcomes = [(process.communicate(timeout=120)[1], process.returncode) for process in started]
    assert [code for _, code in outcomes] == [0] * 4, [error for error, _ in outcomes]
    opened = sql_store.open_store(empty_url)
    try:
        add_session(opened)
    finally:
        opened.close()


def test_a_migration_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    if empty_url.startswith("sqlite"):
        Path(empty_url.removeprefix("sqlite:///")).parent.mkdir()
    with engine(empty_url) as opened, opened.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE leases (name TEXT)")  # the last one to be made
        before = definitions(connection)
    with pytest.raises((errors.SpawnError, sa.exc.SQLAlchemyError)):
        upgrade.migrate(empty_url)
    with engine(empty_url) as opened, opened.connect() as connection:
        assert definitions(connection) == before


def test_sqlite_readers_never_wait_and_foreign_keys_hold(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    upgrade.migrate(url)
    with engine(url) as opened, opened.connect() as connection:
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


@pytest.fixture
def crowded(store: SqlStore, store_url: str) -> SqlStore:
    """A store with thousands of ended sessions and sandboxes that are gone, and a few live ones."""
    host = samples.host(slots=10)
    store.hosts.put(host)
    ended = [
        samples.session(
            state=SessionState.DESTROYED, created_at=later(-9000 + number), prompt="please " * 200
        )
        for number in range(ENDED_ROWS)
    ]
    gone = [samples.sandbox(host_id=host.id, state="gone", routed=False) for _ in range(ENDED_ROWS)]
    with store._database.write() as connection:
        connection.execute(sa.insert(schema.sessions), [codec.session_values(s) for s in ended])
        connection.execute(
            sa.insert(schema.sandboxes),
            [{column.name: getattr(s, column.name) for column in codec.SANDBOX} for s in gone],
        )
    for _ in range(20):
        add_session(store)
    statistics = sa.create_engine(store_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with statistics.connect() as connection:
        connection.exec_driver_sql(
            "ANALYZE" if "sqlite" in store_url else "VACUUM ANALYZE sessions, sandboxes, hosts"
        )
    statistics.dispose()
    return store


def scans(store: SqlStore, ask: Callable[[], object]) -> list[str]:
    """Tables that `ask` reads from end to end, as the database's own plans say."""
    asked: list[tuple[str, Any]] = []

    def note(*call: Any) -> None:
        if call[2].startswith(("SELECT", "UPDATE", "DELETE")):
            asked.append((call[2], call[3]))

    target = store._database._engine
    event.listen(target, "before_cursor_execute", note)
    try:
        ask()
    finally:
        event.remove(target, "before_cursor_execute", note)
    assert asked, "this asked the database nothing"
    return [table for statement, values in asked for table in scanned(store, statement, values)]


def scanned(store: SqlStore, statement: str, values: Any) -> Iterator[str]:
    with store._database.read() as connection:
        if connection.dialect.name == "sqlite":
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values):
                words = row[-1].split()
                # What is read through an index alone, or through a partial one, isn't the table.
                if words[0] == "SCAN" and "INDEX" not in words:
                    yield words[1]
        else:
            explain = f"EXPLAIN (FORMAT JSON) {statement}"
            plan = connection.exec_driver_sql(explain, values).scalar_one()
            yield from seq_scans(plan if isinstance(plan, list) else json.loads(plan))


def seq_scans(plan: Any) -> Iterator[str]:
    if isinstance(plan, list):
        for part in plan:
            yield from seq_scans(part)
    elif isinstance(plan, dict):
        if plan.get("Node Type") == "Seq Scan":
            yield plan["Relation Name"]
        for part in plan.values():
            yield from seq_scans(part)


BIG = {"sessions", "sandboxes"}
QUESTIONS: dict[str, Callable[[SqlStore], object]] = {
    "due": lambda store: store.sessions.due(NOW, 50),
    "expire": lambda store: store.sessions.expire(later(10**6), 50),
    "ahead_of": lambda store: store.sessions.ahead_of(samples.session(), NOW),
    "waiting": lambda store: store.sessions.waiting(NOW),
    "counts": lambda store: store.sessions.counts(),
    "add": lambda store: store.sessions.add(samples.session(), None, max_active=10**6),
    "list": lambda store: store.sessions.list(user_id=USER),
    "list all": lambda store: store.sessions.list(),
    "prune": lambda store: store.sessions.prune(later(-8999)),
    "claim": lambda store: store.sandboxes.claim(samples.session(), NOW),
    "place": lambda store: store.sandboxes.place(samples.new_sandbox(), NOW),
    "loads": lambda store: store.hosts.loads(),
    "routes": lambda store: store.sandboxes.routes(),
    "unsettled": lambda store: store.sandboxes.unsettled_routes(),
    "mark_routes": lambda store: store.sandboxes.mark_routes(
        {ids.new_sandbox_id(): ids.new_slug()}, [], NOW
    ),
    "sandboxes": lambda store: store.sandboxes.list(),
}


def test_what_has_ended_is_never_read_through(crowded: SqlStore) -> None:
    found = {name: scans(crowded, lambda ask=ask: ask(crowded)) for name, ask in QUESTIONS.items()}
    assert {name: tables for name, tables in found.items() if BIG.intersection(tables)} == {}
    assert scans(crowded, lambda: _read_through(crowded)) == ["sessions"], "a scan is noticed"


def _read_through(store: SqlStore) -> None:
    with store._database.read() as connection:
        connection.execute(sa.select(schema.sessions.c.prompt)).all()
