"""Upgrade a database to the current schema. spawnctl and the embedded start call `migrate`.

It runs Alembic without an ini file, on the migrations in this package. Several processes may start
at once: one migrates, the others wait for it and then have nothing to do.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import exc, text
from sqlalchemy.engine import URL, Connection

from orchestrator.adapters.sql_store.database import engine_for, parse, translated

_FOLDER = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x5370_6177_6E41_49  # "SpawnAI" in ASCII; no other lock of ours has this number
_LOCK_WAIT_MS = 60_000


def migrate(url: str) -> None:
    """Upgrade to the newest version in one transaction. Raises errors.Temporary when the database
    is away, errors.InvalidInput for a URL that the store doesn't support."""
    parsed = parse(url)
    with _sqlite_lock(parsed):
        engine = engine_for(parsed, pool_size=0)
        try:
            with engine.connect() as connection:
                _upgrade(connection)
        except exc.SQLAlchemyError as error:
            raise translated(error) from error
        finally:
            engine.dispose()


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        # In WAL mode readers and the writer never wait for each other.
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SET lock_timeout = {_LOCK_WAIT_MS}")
        connection.exec_driver_sql(f"SET statement_timeout = {_LOCK_WAIT_MS}")
        connection.exec_driver_sql("BEGIN")
        connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _ADVISORY_LOCK})
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.exec_driver_sql("COMMIT")


@contextmanager
def _sqlite_lock(url: URL) -> Iterator[None]:
    """On SQLite, hold a lock file beside the database. Without it the switch to WAL fails at once
    if another process switches too. The lock file stays: deleting it would be another race."""
    if url.drivername != "sqlite":
        yield
        return
    path = Path(str(url.database))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
