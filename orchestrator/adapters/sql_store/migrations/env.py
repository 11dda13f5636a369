"""Alembic runs this script for each command. upgrade.py passes a connection in a transaction."""

from alembic import context

from orchestrator.adapters.sql_store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a table by re-creating it
)
with context.begin_transaction():
    context.run_migrations()
