"""The demo among the processes of one machine."""

from __future__ import annotations

import itertools
import socket
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.config import Settings
from orchestrator.entrypoints import children
from orchestrator.entrypoints.cli.commands.up import print_banner


def settings(state_dir: Path, *, demo: bool) -> Settings:
    return config.make(state_dir=state_dir, demo=demo, demo_port=9123)


def test_the_demo_runs_before_who_calls_it_and_ends_after_it(tmp_path: Path) -> None:
    started = [child.name for child in children.all_children(settings(tmp_path, demo=True))]

    assert started.index("demo") < started.index("api-1")
    assert children.STOP_ORDER.index("demo") > children.STOP_ORDER.index("api-1")
    assert {*started, "standby"} <= set(children.STOP_ORDER)


def test_the_demo_listens_where_the_settings_say(tmp_path: Path) -> None:
    (demo,) = (
        child
        for child in children.all_children(settings(tmp_path, demo=True))
        if child.name == "demo"
    )

    assert ("--port", "9123") in itertools.pairwise(demo.argv)
    assert not demo.ready()


def test_without_a_demo_there_is_no_such_process(tmp_path: Path) -> None:
    names = [child.name for child in children.all_children(settings(tmp_path, demo=False))]
    assert "demo" not in names


def test_the_banner_says_no_more_of_claude_than_the_running_processes_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # it doesn't listen
        port = nobody.getsockname()[1]
        print_banner(config.make(state_dir=tmp_path, http_port=port, demo=True))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Claude"))
    assert line.startswith("Claude     unknown: the control plane doesn't answer")
