"""Bring a database to the present schema. spawnctl and the embedded start call `migrate`.

Alembic without an ini file: the migrations lie in this package. Any number of processes may start
at once: one migrates, the others wait for it and then find nothing to do.
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
_ADVISORY_LOCK = 0x5370_6177_6E41_49  # "SpawnAI"; shares its numbers with nothing else of ours
_LOCK_WAIT_MS = 60_000


def migrate(url: str) -> None:
    """Upgrade to the newest version, all of it or nothing. Raises errors.Temporary when the
    database is away, errors.InvalidInput for a URL that can't be a store's."""
    parsed = parse(url)
    with _alone(parsed):
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
        # A reader then never waits for the writer, nor the writer for readers.
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
def _alone(url: URL) -> Iterator[None]:
    """On SQLite, a lock beside the file: switching it to WAL is refused, not queued, when another
    process does the same. The lock's file stays, for to delete it would be a race of its own."""
    if url.drivername != "sqlite":
        yield
        return
    path = Path(str(url.database))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
