"""Image pushes as processes of their own: a few at once, none twice, and all ended at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.hosts.push_processes import PushProcesses
from tests.fakes import samples
from tests.integration.docker.support import eventually

# Says that it began, and ends with the exit code that it is told through a pipe.
PUSH = """
import os, pathlib, sys
folder, host = pathlib.Path(sys.argv[1]), sys.argv[2]
os.mkfifo(folder / host)
with (folder / "began").open("a") as began:
    began.write(host + "\\n")
sys.exit(int((folder / host).read_text()))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "began").touch()
    return tmp_path


@pytest.fixture
def pushes(folder: Path) -> Iterator[PushProcesses]:
    made = PushProcesses(argv=(sys.executable, "-c", PUSH, str(folder)))
    yield made
    made.stop()


def began(folder: Path) -> list[str]:
    return (folder / "began").read_text().split()


def running(pushes: PushProcesses) -> int:
    return sum(pushes._is_running(push) for push in pushes._pushes.values())


def test_a_few_are_pushed_to_at_once_and_the_next_when_one_is_done(
    pushes: PushProcesses, folder: Path
) -> None:
    hosts = [samples.host(name=f"host-{number}") for number in range(5)]
    for _ in range(3):
        pushes.ensure(hosts)
    eventually("three have begun", lambda: len(began(folder)) == 3)
    assert set(began(folder)) == {"host-0", "host-1", "host-2"}
    (folder / "host-1").write_text("0")
    eventually("one is done", lambda: running(pushes) == 2)
    pushes.ensure(hosts)
    eventually("the next has begun", lambda: began(folder)[-1] == "host-3")
    assert len(began(folder)) == 4


@pytest.mark.parametrize("code", ["0", "1"])
def test_a_push_that_ended_is_not_repeated_at_once(
    pushes: PushProcesses, folder: Path, code: str
) -> None:
    """It may have failed for good, or the host is about to be found to have the image."""
    host = samples.host(name="alpha")
    pushes.ensure([host])
    eventually("it has begun", lambda: began(folder) == ["alpha"])
    (folder / "alpha").write_text(code)
    eventually("it has ended", lambda: running(pushes) == 0)
    pushes.ensure([host])
    assert began(folder) == ["alpha"]
    assert running(pushes) == 0


def test_stopping_ends_those_that_run(pushes: PushProcesses, folder: Path) -> None:
    pushes.ensure([samples.host(name="alpha"), samples.host(name="beta")])
    eventually("both have begun", lambda: len(began(folder)) == 2)
    processes = [push.process for push in pushes._pushes.values() if push.process is not None]
    pushes.stop()
    for process in processes:
        assert process.poll() is not None
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)
