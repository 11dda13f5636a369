"""Which files of the running app come along into the next version."""

from __future__ import annotations

import os
from pathlib import Path

from agent.bundles.belongings import carry_over


def test_what_is_neither_of_the_old_source_nor_of_the_new_comes_along(tmp_path: Path) -> None:
    present, following = tmp_path / "present", tmp_path / "following"
    for folder, names in {
        present: ["main.py", "gone.py", "data/app.db", "made.txt", "__pycache__/x.pyc"],
        following: ["main.py", "made.txt"],
    }.items():
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{name} of {folder.name}")
    (present / "link").symlink_to("/etc/passwd")
    os.mkfifo(present / "pipe")

    carry_over(str(present), {"main.py", "gone.py"}, str(following))

    there = {str(p.relative_to(following)): p.read_text() for p in following.rglob("*.*")}
    assert there == {
        "main.py": "main.py of following",
        "made.txt": "made.txt of following",
        "data/app.db": "data/app.db of present",
    }
    assert not (following / "link").exists()
