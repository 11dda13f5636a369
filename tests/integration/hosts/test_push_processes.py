"""Image pushes in processes of their own: a few at once, none twice, and none after the stop."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.hosts.push_processes import PushProcesses
from tests.fakes import samples
from tests.integration.docker.support import eventually

# Records its start, and exits with the code that it reads from a pipe.
PUSH = """
import os, pathlib, sys
folder, host = pathlib.Path(sys.argv[1]), sys.argv[2]
os.mkfifo(folder / host)
with (folder / "started").open("a") as started:
    started.write(host + "\\n")
sys.exit(int((folder / host).read_text()))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "started").touch()
    return tmp_path


@pytest.fixture
def pushes(folder: Path) -> Iterator[PushProcesses]:
    processes = PushProcesses(argv=(sys.executable, "-c", PUSH, str(folder)))
    yield processes
    processes.stop()


def started_hosts(folder: Path) -> list[str]:
    return (folder / "started").read_text().split()


def count_running(pushes: PushProcesses) -> int:
    return sum(pushes._poll(push) for push in pushes._pushes.values())


def test_a_few_pushes_run_at_once_and_the_next_starts_when_one_ends(
    pushes: PushProcesses, folder: Path
) -> None:
    hosts = [samples.host(name=f"host-{number}") for number in range(5)]
    for _ in range(3):
        pushes.ensure(hosts)
    eventually("three have started", lambda: len(started_hosts(folder)) == 3)
    assert set(started_hosts(folder)) == {"host-0", "host-1", "host-2"}
    (folder / "host-1").write_text("0")
    eventually("one has ended", lambda: count_running(pushes) == 2)
    pushes.ensure(hosts)
    eventually("the next has started", lambda: started_hosts(folder)[-1] == "host-3")
    assert len(started_hosts(folder)) == 4


@pytest.mark.parametrize("code", ["0", "1"])
def test_a_push_that_ended_is_not_repeated_at_once(
    pushes: PushProcesses, folder: Path, code: str
) -> None:
    """It may have failed permanently, or the next inspection finds that the host has the image."""
    host = samples.host(name="alpha")
    pushes.ensure([host])
    eventually("it has started", lambda: started_hosts(folder) == ["alpha"])
    (folder / "alpha").write_text(code)
    eventually("it has ended", lambda: count_running(pushes) == 0)
    pushes.ensure([host])
    assert started_hosts(folder) == ["alpha"]
    assert count_running(pushes) == 0


def test_stopping_ends_running_pushes(pushes: PushProcesses, folder: Path) -> None:
    pushes.ensure([samples.host(name="alpha"), samples.host(name="beta")])
    eventually("both have started", lambda: len(started_hosts(folder)) == 2)
    processes = [push.process for push in pushes._pushes.values() if push.process is not None]
    pushes.stop()
    for process in processes:
        assert process.poll() is not None
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)
