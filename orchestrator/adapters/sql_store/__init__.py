"""The store on SQL: ports.Store for SQLite and PostgreSQL. bootstrap opens it.

It uses SQLAlchemy Core statements, no ORM. Call `upgrade.migrate` first, then `open_store`.
This package does not import `upgrade`, so a process that only opens the store never loads Alembic.
"""

from orchestrator.adapters.sql_store.store import SqlStore, open_store

__all__ = ["SqlStore", "open_store"]
