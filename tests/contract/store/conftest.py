"""The stores that the contract suites run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.adapters import sql_store
from orchestrator.adapters.sql_store import SqlStore


@pytest.fixture
def store(store_url: str) -> Iterator[SqlStore]:
    """An empty store, once on SQLite and once on PostgreSQL: 10 ports per host, 5 log lines."""
    opened = sql_store.open_store(store_url, port_range=(21000, 21009), log_lines=5)
    try:
        yield opened
    finally:
        opened.close()
