"""Which files of the running app are copied to its next version."""

from __future__ import annotations

import os
from pathlib import Path

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
