"""A world for each test: an empty SQLite store, fakes of everything else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import orchestrator
from orchestrator.adapters import sql_store
from orchestrator.adapters.files.bundle_store import FolderBundles
from orchestrator.adapters.files.catalog import FolderCatalog
from orchestrator.domain.sessions.session import Session
from tests.fakes.clock import ManualClock
from tests.unit.domain import conftest as _examples  # noqa: F401 - its hypothesis profile holds
from tests.unit.services.moves import Move
from tests.unit.services.world import World


@pytest.fixture(scope="session")
def catalog() -> FolderCatalog:
    """The real catalog: prompts have to find its templates."""
    return FolderCatalog(Path(orchestrator.__file__).parent / "catalog")


@pytest.fixture
def world(migrated_sqlite: Path, tmp_path: Path, catalog: FolderCatalog) -> Iterator[World]:
    """A pool without hosts, a store without sessions."""
    path = tmp_path / "store.db"
    shutil.copy(migrated_sqlite, path)
    store = sql_store.open_store(f"sqlite:///{path}", port_range=(21000, 21099))
    clock = ManualClock()
    bundles = FolderBundles(tmp_path / "bundles", lambda: clock.now().timestamp())
    try:
        yield World(store=store, bundles=bundles, catalog=catalog, clock=clock)
    finally:
        store.close()


@pytest.fixture
def session(world: World) -> Session:
    """A session on a warm sandbox, PROVISIONING."""
    world.add_host()
    world.add_warm_sandbox()
    session = world.create_session(prompt="a tide calendar for Brest", template=None)
    world.converge(session)
    return world.session(session)


@pytest.fixture
def move(world: World) -> Move:
    """A READY session on one host, and another host that has room."""
    return Move(world)
