"""Which files of the running app are copied to its next version."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from agent.jobs.app_data import carry_over


def test_files_that_the_app_made_are_copied_and_sources_and_new_files_are_not(
    tmp_path: Path,
) -> None:
    current, following = tmp_path / "current", tmp_path / "following"
    for folder, names in {
        current: ["main.py", "gone.py", "data/app.db", "made.txt", "__pycache__/x.pyc"],
        following: ["main.py", "made.txt"],
    }.items():
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{name} of {folder.name}")
    (current / "link").symlink_to("/etc/passwd")
    os.mkfifo(current / "pipe")

    carry_over(str(current), {"main.py", "gone.py"}, str(following))

    files = {str(path.relative_to(following)): path.read_text() for path in following.rglob("*.*")}
    assert files == {
        "main.py": "main.py of following",
        "made.txt": "made.txt of following",
        "data/app.db": "data/app.db of current",
    }
    assert not (following / "link").exists()


def test_more_files_than_a_version_may_get_are_refused(tmp_path: Path) -> None:
    current, following = tmp_path / "current", tmp_path / "following"
    for folder in (current, following):
        folder.mkdir()
    for name in ("1", "2"):
        (current / name).write_text(name)
    carry_over(str(current), set(), str(following), most=2)
    (current / "3").write_text("3")
    (current / "4").write_text("4")

    with pytest.raises(OSError, match="more than 1 files"):
        carry_over(str(current), set(), str(following), most=1)
