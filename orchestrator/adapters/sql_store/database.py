"""Access to the database: connections, transactions, and the translation of its errors.

The other modules of this package reach the database through this one, and through `prepared`.
Connections are in autocommit mode, so that a read costs one statement. `Database.write` begins and
commits its transaction itself. On SQLite it uses BEGIN IMMEDIATE: a transaction that starts
as a reader and then writes fails there at once, without waiting, if somebody else wrote meanwhile.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.pool import NullPool, QueuePool

from orchestrator.adapters.sql_store import postgres
from orchestrator.adapters.sql_store.prepared import Lookup
from orchestrator.domain import errors

WAIT_S = 10  # the longest wait for a connection, for a lock, and to be SQLite's one writer
_FOREIGN_KEY_VIOLATION = "23503"  # SQLSTATE
_DISK_FULL = "53100"
_STATEMENT_MODE = "statement pooling mode"  # in what PgBouncer says to BEGIN
# A disk that fails, and a database that such a disk has damaged.
_SQLITE_DISK = frozenset(
    (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
)
_READ_ONLY = "25006"  # a standby, after a fail-over that our connections have not followed


class Database:
    """Reads and writes on an engine. They raise our errors instead of SQLAlchemy's."""

    def __init__(self, engine: Engine, check_term: Callable[[], None] = lambda: None) -> None:
        """`check_term` raises errors.TermOver if this process must not write any more."""
        self._engine = engine
        self._check_term = check_term
        # SQLite has one writer at a time, and the others poll with growing pauses. Within a
        # process this lock admits the next writer at once. Waiting writers hold no connection.
        self._writer_lock = threading.Lock() if engine.dialect.name == "sqlite" else None
        self._begin = "BEGIN IMMEDIATE" if self._writer_lock is not None else "BEGIN"
        self._own = _OwnReads()

    @contextmanager
    def keyed_reads(self) -> Iterator[None]:
        """In this block, this thread makes lookups alone, on a connection of its own that waits for
        nobody. Anything else raises WouldBlock, and with PostgreSQL the block itself."""
        if self._writer_lock is None:
            raise _would_block("a database server is asked over the network")
        own = self._own
        if own.connection is None:
            own.connection = _connect_reader(self._engine.url)
        own.is_on = True
        try:
            yield
        finally:
            own.is_on = False

    def may_block(self) -> None:
        """Raises WouldBlock in a block of `keyed_reads`."""
        if self._own.is_on:
            raise _would_block("it is more than a lookup")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection without a transaction. Each statement sees all that is committed when it
        starts. Raises Temporary when the database is away."""
        self.may_block()
        try:
            with self._engine.connect() as connection:
                yield connection
        except exc.SQLAlchemyError as error:
            raise translated(error) from error

    def first(self, lookup: Lookup, **values: Any) -> Sequence[Any] | None:
        """The row that `lookup` finds for these values, or None. For queries that run at every
        request: this takes about a third of the time of the same statement in `read`."""
        if self._own.is_on:
            return self._first_of_own(lookup, values)
        with suppress(self._engine.dialect.loaded_dbapi.Error):
            return self._first_of_driver(lookup, values)
        # Repeat it through SQLAlchemy, which replaces a stale pool and whose error we translate.
        with self.read() as connection:
            return connection.execute(lookup.query, values).first()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction. It commits at the end of the block and rolls back on any exception.
        Raises Temporary when the database is away, Conflict and NotFound for broken constraints."""
        self.may_block()
        with self._writer_turn():
            self._check_term()
            try:
                with self._engine.connect() as connection:
                    begin(connection, self._begin)
                    # An exception skips the commit. The pool then rolls the transaction back.
                    yield connection
                    self._check_term()
                    connection.exec_driver_sql("COMMIT")
            except exc.SQLAlchemyError as error:
                raise translated(error) from error

    def close(self) -> None:
        self._engine.dispose()

    def _first_of_own(self, lookup: Lookup, values: Mapping[str, Any]) -> Sequence[Any] | None:
        try:
            return lookup.first(self._engine.dialect, self._own.connection, values)
        except sqlite3.Error as error:
            raise _would_block(str(error)) from error

    def _first_of_driver(self, lookup: Lookup, values: Mapping[str, Any]) -> Sequence[Any] | None:
        try:
            connection = self._engine.raw_connection()
        except exc.SQLAlchemyError as error:
            raise translated(error) from error
        try:
            return lookup.first(self._engine.dialect, connection.dbapi_connection, values)
        except self._engine.dialect.loaded_dbapi.Error:
            connection.invalidate()
            raise
        finally:
            connection.close()

    @contextmanager
    def _writer_turn(self) -> Iterator[None]:
        if self._writer_lock is None:
            yield
            return
        if not self._writer_lock.acquire(timeout=WAIT_S):
            raise _unavailable(f"other writers kept it busy for {WAIT_S} s")
        try:
            yield
        finally:
            self._writer_lock.release()


class _OwnReads(threading.local):
    """The connection of a thread that makes lookups alone."""

    connection: sqlite3.Connection | None = None
    is_on = False


def _connect_reader(url: URL) -> sqlite3.Connection:
    """A connection that can't write, and that fails where another one would wait."""
    try:
        connection = sqlite3.connect(
            url.database or "", timeout=0, isolation_level=None, cached_statements=256
        )
        connection.execute("PRAGMA query_only=ON")
    except sqlite3.Error as error:
        raise _would_block(str(error)) from error
    return connection


def begin(connection: Connection, statement: str = "BEGIN") -> None:
    """Begin a transaction by this statement. Behind a pooler it gets its time limits, too."""
    text = postgres.begin_of(connection.info, statement)
    # Without parameters the driver sends several statements as one.
    connection.exec_driver_sql(text, execution_options={"no_parameters": True})


def insert(connection: Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can have ON CONFLICT: no standard SQL, but both databases spell it alike."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def parse(url: str) -> URL:
    """The database URL with the driver that we use. Raises InvalidInput for an unusable URL."""
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise errors.InvalidInput("this is not a database URL", field="database_url") from error
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "sqlite":
        raise errors.InvalidInput(
            f"{parsed.drivername} is not supported: use sqlite:/// or postgresql://",
            field="database_url",
        )
    if parsed.database in {None, "", ":memory:"}:
        raise errors.InvalidInput(
            "several processes share the database: name a file, sqlite:////path/to/file.db",
            field="database_url",
        )
    return parsed


def engine_for(url: URL, *, pool_size: int, answer_s: float | None = postgres.ANSWER_S) -> Engine:
    """An engine with our settings. With a `pool_size` of 0 it has no pool.

    `answer_s`: the longest wait for an answer of PostgreSQL; None for as long as it takes.
    """
    pool: dict[str, Any] = {"poolclass": NullPool}
    if pool_size:
        # No overflow: when all connections are in use, the caller waits, on both databases.
        pool = {
            "poolclass": QueuePool,
            "pool_size": pool_size,
            "max_overflow": 0,
            "pool_timeout": WAIT_S,
            "pool_use_lifo": True,
        }
    engine = sa.create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        connect_args=_connect_args(url),
        hide_parameters=True,  # prompts and hashes must not reach a log
        **pool,
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_pragmas)
    else:
        postgres.listen(engine, answer_s)
    return engine


def _connect_args(url: URL) -> dict[str, Any]:
    if url.drivername == "sqlite":
        return {"timeout": WAIT_S, "check_same_thread": False, "cached_statements": 256}
    return postgres.connect_args(url, WAIT_S)


def _set_pragmas(connection: Any, _record: object) -> None:
    # NORMAL in WAL mode: a power cut may lose the last transactions but never damages the file.
    # `migrate` sets journal_mode, which is a property of the file.
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")


def translated(error: exc.SQLAlchemyError) -> Exception:
    """Our error for one of SQLAlchemy's. An error that shows a bug of ours is returned as is."""
    if isinstance(error, exc.TimeoutError):
        return _unavailable(f"all connections were busy for {WAIT_S} s")
    if isinstance(error, exc.IntegrityError):
        if _is_dangling(error):
            return errors.NotFound("this refers to a record that does not exist")
        return errors.Conflict("a record with the same name or number exists already")
    if isinstance(error, exc.DBAPIError) and _STATEMENT_MODE in str(error.orig):
        return errors.InvalidInput(
            "the pooler in front of the database allows no transactions: set pool_mode ="
            " transaction there, or give the server's own address. Nothing was changed",
            code="database_pooler",
            field="database_url",
        )
    if isinstance(error, exc.DBAPIError) and _is_disk_full(error):
        return errors.StorageFull(f"the database can't be written: {error.orig}", retry_after_s=10)
    if isinstance(error, exc.DBAPIError) and sqlite_code(error) in _SQLITE_DISK:
        return errors.StorageUnavailable(
            f"the database can't be read or written: {error.orig}", retry_after_s=10
        )
    if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError):
        return _unavailable(str(error.orig).strip() or "no reason given")
    if isinstance(error, exc.DBAPIError) and _sqlstate(error) == _READ_ONLY:
        return _unavailable(f"it takes no writes: {error.orig}")
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return _unavailable("the connection was lost")
    return error


def _is_disk_full(error: exc.DBAPIError) -> bool:
    # Without room for its index of the log, SQLite reports an I/O error.
    is_sqlite_full = sqlite_code(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
    return is_sqlite_full or _sqlstate(error) == _DISK_FULL


def sqlite_code(error: exc.DBAPIError) -> int:
    """SQLite's primary code for the error: the low byte of its extended one. 0: not SQLite's."""
    return (getattr(error.orig, "sqlite_errorcode", None) or 0) & 0xFF


def _is_dangling(error: exc.IntegrityError) -> bool:
    return _sqlstate(error) == _FOREIGN_KEY_VIOLATION or "FOREIGN KEY" in str(error.orig)


def _sqlstate(error: exc.DBAPIError) -> str | None:
    """PostgreSQL's code for the error."""
    return getattr(error.orig, "sqlstate", None)


def _would_block(reason: str) -> errors.WouldBlock:
    return errors.WouldBlock(f"this belongs into a thread: {reason}")


def _unavailable(reason: str) -> errors.Temporary:
    return errors.Temporary(f"the database is not available: {reason}", code="database_unavailable")
