"""Each access to the state folder's disk fails (EIO): every adapter raises our error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.adapters import sql_store
from orchestrator.adapters.files.bundle_store import FolderBundles
from orchestrator.adapters.files.reserve import ReserveFile
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.adapters.hosts import inventory
from orchestrator.adapters.sql_store import SqlStore, upgrade
from orchestrator.adapters.ssh import connection as ssh
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain import errors
from orchestrator.domain.ids import Sha256
from orchestrator.entrypoints import supervisor
from orchestrator.entrypoints.cli.commands.up import running_pid
from orchestrator.entrypoints.liveness import hangs
from tests.disks import SmallDisk, loop_disk
from tests.fakes import samples


@dataclass(frozen=True, kw_only=True)
class State:
    """A state folder with all that an installation writes, on a disk that may die."""

    disk: SmallDisk
    store: SqlStore
    digest: Sha256

    @property
    def folder(self) -> Path:
        return self.disk.folder


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    """Its disk has died."""
    with loop_disk(tmp_path_factory.mktemp("disk"), size_mib=32) as disk:
        folder = disk.folder
        state = StateFolder(folder)
        state.secret()
        state.instance()
        state.operator_key("k")
        state.set_image("spawnai/sandbox:x")
        inventory.write(folder / "inventory.json", [samples.host()])
        SystemClock(folder / "clock").start()
        ssh.ensure_key(folder / "ssh" / "id", "test")
        url = f"sqlite:///{folder / 'spawn.db'}"
        upgrade.migrate(url)
        store = sql_store.open_store(url)
        store.hosts.put(samples.host())
        digest = FolderBundles(folder / "bundles").put(b"b" * 100)
        with supervisor._lock(folder / supervisor.LOCK), contextlib.closing(store):
            disk.die()
            yield State(disk=disk, store=store, digest=digest)


def bundles(state: State) -> FolderBundles:
    return FolderBundles(state.folder / "bundles")


LATER = datetime.now(UTC) + timedelta(hours=1)
ACCESSES: dict[str, Callable[[State], object]] = {
    "put a bundle": lambda state: bundles(state).put(b"c" * 100),
    "touch a bundle": lambda state: bundles(state).touch(state.digest),
    "get a bundle": lambda state: bundles(state).get(state.digest),
    "discard a bundle": lambda state: bundles(state).discard(state.digest, LATER),
    "read the secret": lambda state: StateFolder(state.folder).secret(),
    "read the instance": lambda state: StateFolder(state.folder).instance(),
    "read the operator's key": lambda state: StateFolder(state.folder).operator_key("k"),
    "delete the operator's key": lambda state: StateFolder(state.folder).delete_operator_key(),
    "read the image": lambda state: StateFolder(state.folder).image(),
    "set the image": lambda state: StateFolder(state.folder).set_image("spawnai/sandbox:y"),
    "write the warnings": lambda state: StateFolder(state.folder).write_warnings(["w"]),
    "write the inventory": lambda state: inventory.write(state.folder / "inventory.json", []),
    "read the inventory": lambda state: inventory.read(state.folder / "inventory.json"),
    "set room aside": lambda state: ReserveFile(state.folder / "reserve").keep(),
    "read the clock": lambda state: SystemClock(state.folder / "clock").now(),
    "note the time": lambda state: SystemClock(state.folder / "clock").start(),
    "make a key for SSH": lambda state: ssh.ensure_key(state.folder / "ssh2" / "id", "test"),
    "read the key for SSH": lambda state: ssh.ensure_key(state.folder / "ssh" / "id", "test"),
    "find the supervisor": lambda state: running_pid(state.folder),
    "write a row": lambda state: state.store.hosts.put(samples.host()),
}


@pytest.mark.parametrize("name", ACCESSES)
def test_an_access_says_that_the_disk_fails(dead: State, name: str) -> None:
    with pytest.raises(errors.StorageUnavailable, match=r"(?i)i/o error|input/output error"):
        ACCESSES[name](dead)


def test_what_only_helps_operators_fails_without_an_error(dead: State) -> None:
    hangs.read(dead.folder)
    StateFolder(dead.folder).started_at()
    assert not ReserveFile(dead.folder / "reserve").release()


def test_what_an_installation_needs_survives_a_loss_of_power(tmp_path: Path) -> None:
    def read(folder: Path) -> list[object]:
        state, bundles = StateFolder(folder), FolderBundles(folder / "bundles")
        digest = bundles.put(b"b" * 5000)
        secrets = [state.secret(), state.instance(), state.operator_key("k" * 40), state.image()]
        return [*secrets, ssh.ensure_key(folder / "ssh" / "id", "test"), bundles.get(digest)]

    with loop_disk(tmp_path, size_mib=32) as disk:
        StateFolder(disk.folder).set_image("spawnai/sandbox:x")
        before = read(disk.folder)
        disk.die()
        disk.repair()
        assert read(disk.folder) == before


def test_a_file_that_lost_its_contents_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    with pytest.raises(errors.InvalidInput, match=r"secret is empty.*backup"):
        StateFolder(tmp_path).secret()
