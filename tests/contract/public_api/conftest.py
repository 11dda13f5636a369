"""The public app over both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters import sql_store
from orchestrator.adapters.files.bundle_store import FolderBundles
from orchestrator.adapters.files.catalog import FolderCatalog
from tests.fakes.clock import ManualClock
from tests.unit.services.conftest import catalog
from tests.unit.services.world import World

__all__ = ["catalog"]


@pytest.fixture
def world(store_url: str, tmp_path: Path, catalog: FolderCatalog) -> Iterator[World]:
    """A pool without hosts, a store without sessions: on SQLite, then on PostgreSQL."""
    store = sql_store.open_store(store_url, port_range=(21000, 21099))
    clock = ManualClock()
    bundles = FolderBundles(tmp_path / "bundles", lambda: clock.now().timestamp())
    try:
        yield World(store=store, bundles=bundles, catalog=catalog, clock=clock)
    finally:
        store.close()
