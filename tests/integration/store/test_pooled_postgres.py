"""The store behind a real PgBouncer, which gives each transaction any connection to the server.

Runs the suites of the store's contract that matter most. Poolers refuse the start-up parameters
that we send, or ignore them: our own tests run either way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
import sqlalchemy as sa

from orchestrator.adapters import sql_store
from orchestrator.adapters.sql_store import SqlStore, upgrade
from orchestrator.domain import errors
from tests.conftest import fresh_database
from tests.contract.store.steps import add_session, run_together
from tests.contract.store.test_queue import *  # noqa: F403 - its tests run here too
from tests.contract.store.test_slots import *  # noqa: F403
from tests.contract.store.test_store import *  # noqa: F403
from tests.pooler import pooled

IGNORES = "ignore_startup_parameters = options, extra_float_digits"
either_way = pytest.mark.parametrize("lines", [(), (IGNORES,)], ids=["refuses", "ignores"])


@pytest.fixture
def lines() -> Sequence[str]:
    """More settings of the pooler. Without any it refuses what we send at the start."""
    return ()


@pytest.fixture
def store_url(postgres_url: str, migrated_postgres: str, lines: Sequence[str]) -> Iterator[str]:
    """A database behind a pooler in transaction mode."""
    with (
        fresh_database(postgres_url, migrated_postgres) as url,
        pooled(url, "transaction", *lines) as pooled_url,
    ):
        yield pooled_url


@pytest.fixture
def store(store_url: str) -> Iterator[SqlStore]:
    opened = sql_store.open_store(store_url, port_range=(21000, 21009), log_lines=5)
    try:
        yield opened
    finally:
        opened.close()


@either_way
def test_statements_that_are_repeated_find_themselves_on_any_connection(
    store: SqlStore, store_url: str
) -> None:
    """The driver prepares a statement at its sixth use, on one connection of the server."""
    sessions = [add_session(store) for _ in range(4)]
    other = sql_store.open_store(store_url)
    start = threading.Barrier(8)

    def repeat(own: SqlStore) -> None:
        start.wait(10)
        for _ in range(20):
            for session in sessions:
                assert own.sessions.get(session.id).id == session.id
            own.sessions.counts()
            own.ping()

    try:
        run_together([lambda own=own: repeat(own) for own in (store, other) for _ in range(4)])  # type: ignore[misc]
    finally:
        other.close()


@either_way
def test_a_transaction_has_its_time_limits_and_leaves_none_behind(
    postgres_url: str, store_url: str
) -> None:
    upgrade.migrate(store_url, "an-installation")
    store = sql_store.open_store(store_url)
    engine = sa.create_engine(store_url, isolation_level="AUTOCOMMIT")
    limits = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    try:
        with store._database.write() as connection:
            inside = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in limits]
        with engine.connect() as connection:
            after = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in limits]
    finally:
        engine.dispose()
        store.close()
    assert inside == ["10s", "15s", "1min"]
    assert after == ["0", "0", "0"]


def test_a_pooler_that_knows_no_transactions_is_refused_in_one_sentence(
    postgres_url: str,
) -> None:
    with (
        fresh_database(postgres_url, "template0") as url,
        pooled(url, "statement") as pooled_url,
        pytest.raises(errors.InvalidInput, match="pool_mode = transaction") as refused,
    ):
        upgrade.migrate(pooled_url, "an-installation")
    assert refused.value.code == "database_pooler"


def test_settings_of_a_direct_connection_last(postgres_url: str, migrated_postgres: str) -> None:
    with fresh_database(postgres_url, migrated_postgres) as url:
        store = sql_store.open_store(url)
        try:
            with store._database.read() as connection:
                assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "15s"
        finally:
            store.close()
