"""`spawnctl image build`: what is made of the output of build.sh."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.entrypoints.cli.commands import image
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem

ENGINE = "unix:///nowhere.sock"


def script(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "build.sh"
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o700)
    return path


def test_the_tag_is_the_last_line_that_the_build_prints(tmp_path: Path) -> None:
    path = script(tmp_path, "echo Step 1/9", "echo spawnai/runtime:0123456789abcdef", "echo")
    assert image.run_build(path, ENGINE, None) == "spawnai/runtime:0123456789abcdef"


def test_the_build_gets_our_engine_and_the_base(tmp_path: Path) -> None:
    path = script(tmp_path, 'echo "$DOCKER_HOST/$1/$2"')
    assert image.run_build(path, ENGINE, "debian:mine") == f"{ENGINE}/--base/debian:mine"


@pytest.mark.parametrize("lines", [("echo half-a-tag", "exit 3"), ("exit 0",)])
def test_a_build_that_fails_or_says_nothing_is_no_image(
    tmp_path: Path, lines: tuple[str, ...]
) -> None:
    with pytest.raises(Problem) as caught:
        image.run_build(script(tmp_path, *lines), ENGINE, None)
    assert (caught.value.exit_code, caught.value.code) == (Exit.FAILED, "image_not_built")


def test_a_missing_build_script_is_told(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        image.run_build(tmp_path / "none.sh", ENGINE, None)
    assert "none.sh" in caught.value.message


def test_a_setting_goes_before_the_last_build(tmp_path: Path) -> None:
    (tmp_path / "runtime-image").write_text("built:1\n")
    built = config.make(state_dir=tmp_path, runtime_image="")
    chosen = config.make(state_dir=tmp_path, runtime_image="mine:2")
    assert image.current_image(built) == ("built:1", "last build")
    assert image.current_image(chosen) == ("mine:2", "SPAWN_RUNTIME_IMAGE")
