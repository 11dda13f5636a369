"""On a full disk every file adapter raises our error, and nothing is left half written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Message

from orchestrator.adapters import sql_store
from orchestrator.adapters.files.bundle_store import FolderBundles
from orchestrator.adapters.files.catalog import FolderCatalog
from orchestrator.adapters.files.reserve import ReserveFile
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.adapters.hosts import inventory
from orchestrator.adapters.sql_store import SqlStore, upgrade
from orchestrator.domain import errors
from orchestrator.entrypoints import child_logs, supervisor
from orchestrator.entrypoints.api.gateway.bodies import spool_bounded
from orchestrator.entrypoints.cli.commands.up import running_pid
from orchestrator.entrypoints.leadership.lease import LEASE_S, Lease
from tests.disks import SmallDisk, loop_disk, small_disk
from tests.fakes import samples
from tests.unit.loops.running import run_pass
from tests.unit.services.world import World

_MIB = 1024**2


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", size_mib=4) as disk:
        yield disk


def spool(folder: Path) -> None:
    """Receive an upload."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"u" * 10_000}

    async def run() -> None:
        request = Request({"type": "http", "headers": []}, receive)
        file = await spool_bounded(request, _MIB, folder, asyncio.to_thread)
        assert file is not None
        with file:
            assert len(file.read()) == 10_000

    asyncio.run(run())


WRITES: dict[str, Callable[[Path], object]] = {
    "bundle": lambda folder: FolderBundles(folder / "bundles").put(b"b" * 10_000),
    "image": lambda folder: StateFolder(folder).set_image("spawnai/sandbox:" + "x" * 10_000),
    "secret": lambda folder: StateFolder(folder).operator_key("k" * 10_000),
    "warnings": lambda folder: StateFolder(folder).write_warnings(["w" * 10_000]),
    "inventory": lambda folder: inventory.write(
        folder / "inventory.json", [samples.host() for _ in range(100)]
    ),
    "upload": spool,
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_says_that_the_disk_is_full_and_works_once_there_is_room(
    disk: SmallDisk, name: str
) -> None:
    disk.fill()
    with pytest.raises(errors.StorageFull, match="No space left on device"):
        WRITES[name](disk.folder)
    disk.free()
    WRITES[name](disk.folder)
    assert StateFolder(disk.folder).free_bytes() > 0


def test_what_is_there_can_be_read_and_deleted_on_a_full_disk(disk: SmallDisk) -> None:
    bundles = FolderBundles(disk.folder / "bundles")
    digest = bundles.put(b"b" * 100_000)
    disk.fill()
    assert bundles.put(b"b" * 100_000) == digest, "it is kept already"
    assert bundles.get(digest) == b"b" * 100_000
    assert bundles.discard(digest, datetime.now(UTC) + timedelta(hours=1))
    bundles.put(b"c" * 50_000)


def test_a_log_is_emptied_even_if_there_is_no_room_for_a_copy(disk: SmallDisk) -> None:
    log, older = disk.folder / "api.log", disk.folder / "api.log.1"
    older.write_bytes(b"o" * 1000)
    log.write_bytes(b"l" * _MIB)
    with log.open("ab", buffering=0) as writer:
        disk.fill()
        child_logs.rotate_log(log, _MIB // 2)
        assert log.stat().st_size == 0
        assert not older.exists(), "no half copy stays"
        writer.write(b"goes on\n")
    assert log.read_bytes() == b"goes on\n"
    disk.free()
    child_logs.rotate_log(log, 5)
    assert older.read_bytes() == b"goes on\n"


def test_a_log_line_that_can_not_be_written_is_lost_and_nothing_else(disk: SmallDisk) -> None:
    program = (
        "from orchestrator import observability; from orchestrator.slim import structlog;"
        "observability.configure('info', 'test'); log = structlog.get_logger();"
        "[log.info('line_written', text='x' * 5000) for _ in range(50)]; print('done')"
    )
    disk.fill()
    log = disk.folder / "full.log"
    log.touch()
    with log.open("ab") as stderr:
        result = subprocess.run(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=stderr,
            check=False,
            timeout=60,
        )
    assert result.stdout == b"done\n"


@contextlib.contextmanager
def opened_store(folder: Path) -> Iterator[SqlStore]:
    url = f"sqlite:///{folder / 'spawn.db'}"
    upgrade.migrate(url)
    store = sql_store.open_store(url)
    try:
        yield store
    finally:
        store.close()


def fill_with_hosts(store: SqlStore) -> None:
    """Write until SQLite has no page left: the first rows may fit into those that are there."""
    for _ in range(200):
        store.hosts.put(samples.host())


def test_a_database_on_a_full_disk_is_read_and_its_writes_say_why(disk: SmallDisk) -> None:
    with opened_store(disk.folder) as store:
        host = samples.host()
        store.hosts.put(host)
        disk.fill()
        with pytest.raises(errors.StorageFull, match="the database can't be written"):
            fill_with_hosts(store)
        assert host in store.hosts.list()
        disk.free()
        store.hosts.put(samples.host())


def test_a_leader_goes_on_while_nobody_can_write_the_lease(disk: SmallDisk) -> None:
    with opened_store(disk.folder) as store:
        folder = disk.folder
        world = World(
            store=store, bundles=FolderBundles(folder / "b"), catalog=FolderCatalog(folder / "c")
        )
        stop = threading.Event()
        lease = Lease(world.deps, stop)
        assert lease.acquire()
        disk.fill()
        with pytest.raises(errors.StorageFull):
            fill_with_hosts(store)
        # Its last renewal that succeeded lasts for less.
        stopping = threading.Timer(LEASE_S + 1, stop.set)
        stopping.start()
        assert lease.keep()
        stopping.join()
        lease.check()
        disk.free()
        lease.release()


def test_sessions_expire_and_rows_are_pruned_with_not_a_block_left(disk: SmallDisk) -> None:
    with opened_store(disk.folder) as store:
        world = World(
            store=store,
            bundles=FolderBundles(disk.folder / "b"),
            catalog=FolderCatalog(disk.folder / "c"),
            reserve=ReserveFile(disk.folder / "reserve", _MIB // 2),
        )
        for _ in range(20):
            store.sessions.add(samples.session(), None, max_active=100)
        run_pass(world, "prune")
        disk.fill()
        with pytest.raises(errors.StorageFull):
            fill_with_hosts(store)
        disk.fill()  # what SQLite gave back when it failed
        world.free_bytes = 0
        world.clock.advance(100 * 24 * 3600)

        assert run_pass(world, "reap") == "expired=20"
        run_pass(world, "prune")
        assert not (disk.folder / "reserve").exists(), "it is in use"
        disk.free()
        world.free_bytes = 2 * _MIB
        run_pass(world, "prune")
        assert (disk.folder / "reserve").stat().st_blocks * 512 >= _MIB // 2


def test_a_reserve_is_all_or_nothing(disk: SmallDisk) -> None:
    reserve = ReserveFile(disk.folder / "reserve", 8 * _MIB)
    with pytest.raises(errors.StorageFull):
        reserve.keep()
    assert list(disk.folder.iterdir()) == []
    assert not reserve.release()


def test_down_finds_the_supervisor_on_a_disk_that_takes_no_writes(tmp_path: Path) -> None:
    with loop_disk(tmp_path, size_mib=16) as disk, contextlib.ExitStack() as running:
        lock = disk.folder / supervisor.LOCK
        assert running_pid(disk.folder) is None
        running.enter_context(supervisor._lock(lock))
        disk.fail()
        with pytest.raises(OSError, match="Read-only"):
            lock.write_text("")
        assert running_pid(disk.folder) == os.getpid()
