"""The store on SQL: ports.Store for SQLite and PostgreSQL. bootstrap opens it.

Core statements, no ORM. `upgrade.migrate` first, then `open_store`. The former isn't named here:
whoever only opens the store need not hold all of Alembic in memory.
"""

from orchestrator.adapters.sql_store.store import SqlStore, open_store

__all__ = ["SqlStore", "open_store"]
