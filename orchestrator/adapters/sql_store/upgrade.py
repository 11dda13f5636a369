"""Upgrade a database to the current schema. spawnctl and the embedded start call `migrate`.

It runs Alembic without an ini file, on the migrations in this package. Several processes may start
at once: one migrates, the others wait for it and then have nothing to do.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import exc, text
from sqlalchemy.engine import URL, Connection

from orchestrator.adapters.sql_store import schema
from orchestrator.adapters.sql_store.database import (
    begin,
    engine_for,
    insert,
    parse,
    sqlite_code,
    translated,
)
from orchestrator.domain import errors
from orchestrator.ports import LeaseRecord

_FOLDER = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x5370_6177_6E41_49  # "SpawnAI" in ASCII; no other lock of ours has this number
_LOCK_WAIT_MS = 60_000
_DAMAGED = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}


def migrate(url: str, installation: str = "") -> None:
    """Upgrade to the newest version in one transaction, and make the database this installation's.

    `installation` is the id of the installation; with "" no owner is checked or written. Raises
    errors.Temporary when the database is away, errors.InvalidInput for a URL that the store doesn't
    support, errors.Conflict (database_newer, database_taken): then nothing has been changed.
    """
    parsed = parse(url)
    with _sqlite_lock(parsed), _connected(parsed) as connection:
        _begin(connection)
        check_usable(connection, installation)
        command.upgrade(_config(connection), "head")
        if installation:
            owner = insert(connection, schema.installation).values(only=1, id=installation)
            connection.execute(owner.on_conflict_do_nothing())
        connection.exec_driver_sql("COMMIT")


def inspect(url: str, installation: str) -> str:
    """The version of a database's schema; "" if it has none yet. Changes nothing.

    Raises what `migrate` raises.
    """
    parsed = parse(url)
    if parsed.drivername == "sqlite" and not Path(str(parsed.database)).exists():
        return ""
    with _connected(parsed) as connection:
        return check_usable(connection, installation)


def read_lease(url: str, name: str) -> LeaseRecord | None:
    """The lease in a database of any release. None if there is none. Changes nothing.

    Raises errors.Temporary when the database is away.
    """
    parsed = parse(url)
    if parsed.drivername == "sqlite" and not Path(str(parsed.database)).exists():
        return None
    leases = schema.leases.c
    query = sa.select(leases.holder, leases.until).where(leases.name == name)
    with _connected(parsed) as connection:
        if not sa.inspect(connection).has_table(schema.leases.name):
            return None
        row = connection.execute(query).first()
    return None if row is None else LeaseRecord(holder=row[0], until=row[1], term=0)


def check_usable(connection: Connection, installation: str) -> str:
    """Return the version of the schema, "" for none. Raises errors.Conflict (database_newer,
    database_taken), errors.InvalidInput (database_foreign)."""
    version = MigrationContext.configure(connection).get_current_revision() or ""
    if not version:
        _check_unused(connection)
    known = [script.revision for script in _scripts().walk_revisions()]
    if version and version not in known:
        raise errors.Conflict(
            f"this database is of a newer release: its schema is {version}, and this release knows"
            f" those up to {known[0]}. Start the newer release again, or restore the backup that"
            " you made before you upgraded. Nothing was changed",
            code="database_newer",
        )
    if installation and sa.inspect(connection).has_table(schema.installation.name):
        owner = connection.execute(sa.select(schema.installation.c.id)).scalar()
        if owner not in {None, installation}:
            raise errors.Conflict(
                f"this database belongs to the installation {owner}, and this is {installation}:"
                " set SPAWN_DATABASE_URL to a database of its own. If this machine is to replace"
                " the other one, copy its state folder here first. Nothing was changed",
                code="database_taken",
                owner=owner,
            )
    return version


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    engine = engine_for(url, pool_size=0, answer_s=None)  # a migration may take long
    try:
        with engine.connect() as connection:
            yield connection
    except exc.SQLAlchemyError as error:
        raise _unusable(url, error) from error
    finally:
        engine.dispose()


def _unusable(url: URL, error: exc.SQLAlchemyError) -> Exception:
    """Our error for one of SQLAlchemy's. It names the file of a database that can't be opened."""
    translation = translated(error)
    if url.drivername != "sqlite" or not isinstance(error, exc.DBAPIError):
        return translation
    if sqlite_code(error) in _DAMAGED:
        return errors.InvalidInput(
            f"{url.database} is no database, or a damaged one ({error.orig}): put it back from your"
            " backup, or move it away to begin anew",
            code="database_damaged",
            field="database_url",
        )
    if sqlite_code(error) == sqlite3.SQLITE_CANTOPEN:
        return errors.InvalidInput(
            f"{url.database} can't be opened as a database: it has to be a file that our user may"
            " write, in a folder that our user may write. Move away what is there, or set"
            " SPAWN_DATABASE_URL",
            code="database_unopenable",
            field="database_url",
        )
    return translation


def _check_unused(connection: Connection) -> None:
    """Raises errors.InvalidInput (database_foreign) if a database without our schema has tables of
    another program. On a server the two may share it, unless their names collide."""
    tables = set(sa.inspect(connection).get_table_names())
    if connection.dialect.name != "sqlite":
        tables &= schema.metadata.tables.keys()
    if tables:
        raise errors.InvalidInput(
            f"the database {connection.engine.url.database} has tables of another program, such as"
            f" {min(tables)}: set SPAWN_DATABASE_URL to a database of its own. Nothing was changed",
            code="database_foreign",
            field="database_url",
        )


def _begin(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        # In WAL mode readers and the writer never wait for each other.
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        begin(connection)
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_LOCK_WAIT_MS}")
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {_LOCK_WAIT_MS}")
        connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _ADVISORY_LOCK})


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(_FOLDER))


@contextmanager
def _sqlite_lock(url: URL) -> Iterator[None]:
    """On SQLite, hold a lock file beside the database. Without it the switch to WAL fails at once
    if another process switches too. The lock file stays: deleting it would be another race."""
    if url.drivername != "sqlite":
        yield
        return
    path = Path(str(url.database))
    with errors.storage("prepare the database's folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
