"""A leader whose lease may have run out does nothing more, and ends, whatever made it late."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from orchestrator.adapters import sql_store
from orchestrator.adapters.sql_store import SqlStore, upgrade
from orchestrator.entrypoints.leadership.lease import LEASE
from orchestrator.entrypoints.liveness import exits

ROOT = Path(__file__).parents[3]
DEADLINE_S = 60
OTHER = "elsewhere:another-boot.1:7:1"


@dataclass
class Leader:
    """The process of leader.py, and the lines that it has written so far."""

    process: subprocess.Popen[str]
    acts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("acted"):
                self.acts.append(line)

    def wait_for_acts(self, count: int) -> None:
        target = len(self.acts) + count
        wait_until(lambda: len(self.acts) >= target, "the leader to act")

    def end(self) -> int:
        """Wait until it has ended and all that it wrote is read. Returns its exit status."""
        status = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return status


def wait_until(condition: Callable[[], object], description: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {description}"
        pause.wait(0.02)


@contextlib.contextmanager
def leading(folder: Path, url: str) -> Iterator[Leader]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.store.leader", str(folder), url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    leader = Leader(process)
    try:
        leader.wait_for_acts(3)
        yield leader
    finally:
        process.kill()
        leader.end()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def store(store_url: str) -> Iterator[SqlStore]:
    store = sql_store.open_store(store_url)
    try:
        yield store
    finally:
        store.close()


def take_over(store: SqlStore) -> None:
    """Another machine's daemon takes the lease, as soon as it has run out."""

    def take() -> bool:
        now = datetime.now(UTC)
        return bool(store.leases.hold(LEASE, OTHER, now + timedelta(hours=1), now))

    wait_until(take, "the lease to run out")


def test_a_leader_that_was_stopped_does_nothing_after_it_wakes(
    store: SqlStore, store_url: str, tmp_path: Path
) -> None:
    with leading(tmp_path, store_url) as leader:
        leader.process.send_signal(signal.SIGSTOP)
        take_over(store)
        before = len(leader.acts)
        leader.process.send_signal(signal.SIGCONT)
        assert leader.end() == exits.TERM_OVER
        assert len(leader.acts) <= before + 1, "only what it had begun when it was stopped"
        assert store.leases.holder(LEASE, datetime.now(UTC)) == OTHER


def test_a_leader_ends_when_its_lease_does_however_slow_the_database_is(
    empty_postgres_url: str, tmp_path: Path
) -> None:
    """Nobody can write the lease while its table is locked, so nobody else leads meanwhile. But
    the leader can't know this: the next one may have renewed just before."""
    upgrade.migrate(empty_postgres_url)
    with (
        leading(tmp_path, empty_postgres_url) as leader,
        psycopg.connect(empty_postgres_url.replace("+psycopg", "")) as connection,
    ):
        connection.execute("LOCK TABLE leases")
        assert leader.end() == exits.TERM_OVER


def test_the_next_leader_on_this_machine_ends_one_that_is_stopped(
    store: SqlStore, store_url: str, tmp_path: Path
) -> None:
    with leading(tmp_path, store_url) as stopped:
        stopped.process.send_signal(signal.SIGSTOP)
        with leading(tmp_path, store_url) as following:
            assert stopped.end() == -signal.SIGKILL
            following.wait_for_acts(3)
            assert following.acts[-1] == "acted 2\n"
            assert following.process.poll() is None


def test_a_leader_that_is_told_to_stop_hands_its_lease_on_at_once(
    store: SqlStore, store_url: str, tmp_path: Path
) -> None:
    with leading(tmp_path, store_url) as leader:
        leader.process.terminate()
        assert leader.end() == 0
        assert store.leases.holder(LEASE, datetime.now(UTC)) is None
        record = store.leases.last(LEASE)
        assert record is not None
        assert record.term == 1
