"""The children of nginx's master, as /proc names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.proxy import nginx_workers
from orchestrator.adapters.proxy.nginx_workers import Process

MASTER = Process(pid=10, started=100)


def add_process(proc: Path, pid: int, parent: int) -> None:
    fields = ["S", str(parent), *["0"] * 17, str(pid * 10), "0"]
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(f"{pid} (nginx: (a) b) {' '.join(fields)}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Processes 11 and 12 are the master's, and 13 isn't."""
    for pid, parent in ((10, 1), (11, 10), (12, 10), (13, 1)):
        add_process(tmp_path, pid, parent)
    (tmp_path / "self").mkdir()
    return tmp_path


def set_list(proc: Path, text: str) -> None:
    (proc / "10" / "task" / "10").mkdir(parents=True)
    (proc / "10" / "task" / "10" / "children").write_text(text)


def children(proc: Path) -> list[int]:
    listed = nginx_workers.list_children(MASTER, proc=str(proc))
    assert all(process.started == process.pid * 10 for process in listed)
    return sorted(process.pid for process in listed)


def test_the_kernels_list_is_enough_if_all_of_it_are_there(proc: Path) -> None:
    set_list(proc, "11 ")
    assert children(proc) == [11], "nothing else of /proc was read"


@pytest.mark.parametrize("gone", ["14", "13"], ids=["gone", "somebody else's by now"])
def test_a_list_that_names_one_who_is_gone_may_miss_another_and_does_not_count(
    proc: Path, gone: str
) -> None:
    set_list(proc, f"11 {gone} ")
    assert children(proc) == [11, 12]


def test_without_a_list_all_processes_are_searched(proc: Path) -> None:
    assert children(proc) == [11, 12]
