"""Alembic migrations of the SQL store; upgrade.py runs them."""
