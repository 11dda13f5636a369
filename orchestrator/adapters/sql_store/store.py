"""The whole store: ports.Store on SQL. bootstrap opens it once per process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from sqlalchemy import text

from orchestrator.adapters.sql_store.access import SqlAudit, SqlKeys, SqlLeases
from orchestrator.adapters.sql_store.bundles import SqlBundleRecords
from orchestrator.adapters.sql_store.database import Database, engine_for, parse
from orchestrator.adapters.sql_store.pool.hosts import SqlHosts
from orchestrator.adapters.sql_store.pool.reads import SqlPoolReads
from orchestrator.adapters.sql_store.pool.sandboxes import SqlSandboxes
from orchestrator.adapters.sql_store.records import SqlChanges, SqlGenerations, SqlLogs
from orchestrator.adapters.sql_store.sessions import SqlSessions
from orchestrator.adapters.sql_store.usage import SqlUsage

_PING = text("SELECT 1")


def open_store(
    url: str,
    *,
    port_range: tuple[int, int] = (21000, 28999),
    log_lines: int = 500,
    pool_size: int = 5,
    check_term: Callable[[], None] = lambda: None,
) -> SqlStore:
    """Open the store on the database at `url`. `migrate` must have run on it.

    `port_range`: the host ports that sandboxes are published on, both ends included.
    `log_lines`: how many log lines are kept per session.
    `pool_size`: the most connections that this process opens.
    `check_term`: called before each write begins and before it commits; raises errors.TermOver if
    we must not act any more.
    The store connects at its first use. Raises InvalidInput for a URL that it doesn't support.
    """
    database = Database(engine_for(parse(url), pool_size=pool_size), check_term)
    return SqlStore(database, port_range=port_range, log_lines=log_lines)


class SqlStore:
    """ports.Store. Threads may share it. After a fork, each process opens its own."""

    def __init__(self, database: Database, *, port_range: tuple[int, int], log_lines: int) -> None:
        self._database = database
        self.sessions = SqlSessions(database)
        self.sandboxes = SqlSandboxes(database, port_range)
        self.hosts = SqlHosts(database)
        self.pool = SqlPoolReads(database)
        self.changes = SqlChanges(database)
        self.bundles = SqlBundleRecords(database)
        self.logs = SqlLogs(database, log_lines)
        self.keys = SqlKeys(database)
        self.audit = SqlAudit(database)
        self.leases = SqlLeases(database)
        self.usage = SqlUsage(database)
        self.generations = SqlGenerations(database)

    def keyed_reads(self) -> AbstractContextManager[None]:
        return self._database.keyed_reads()

    def may_block(self) -> None:
        self._database.may_block()

    def ping(self) -> None:
        with self._database.read() as connection:
            connection.execute(_PING)

    def close(self) -> None:
        self._database.close()
