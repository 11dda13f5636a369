"""The demo among the processes of one machine."""

from __future__ import annotations

import itertools
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


def test_without_a_demo_there_is_no_such_process_and_nothing_is_called_canned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = settings(tmp_path, demo=False)
    assert "demo" not in [child.name for child in children.all_children(plain)]

    print_banner(plain)
    print_banner(settings(tmp_path, demo=True))
    first, second = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith("Claude")
    )
    assert "canned" not in first
    assert second == "Claude     demo: answers are canned, no model writes them"
