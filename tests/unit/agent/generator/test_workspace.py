"""File tools: what they do, and what they say when they don't."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from agent.generator.workspace import ToolError, Workspace

from orchestrator.contract.wire import Limits

LIMITS = Limits(files=5, file_bytes=1000, total_bytes=2500)


@pytest.fixture
def files(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path), LIMITS)


def test_what_was_written_can_be_listed_read_edited_and_deleted(files: Workspace) -> None:
    files.write("./a//b.txt", "one two")
    files.edit("a/b.txt", "two", "drei")

    assert files.listing() == "a/b.txt (8 bytes)"
    assert files.read("a/b.txt") == "one drei"
    files.delete("a/b.txt")
    assert files.listing() == "There are no files yet."
    assert files.empty


def test_every_change_of_a_file_shows_in_the_fingerprint(files: Workspace, tmp_path: Path) -> None:
    fingerprints = [files.fingerprint]
    files.write("a", "one")
    fingerprints.append(files.fingerprint)
    (tmp_path / "b").write_text("by a command")
    fingerprints.append(files.fingerprint)
    files.write("a", "two")
    fingerprints.append(files.fingerprint)

    assert len(set(fingerprints)) == 4
    assert files.fingerprint == fingerprints[-1]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/etc/passwd", "only paths relative"),
        ("../up", "'..' is not allowed"),
        ("a/../../up", "'..' is not allowed"),
        ("", "names no file"),
        (".", "names no file"),
        ("a\nb", "control characters"),
        ("x" * 300, "longer than 240"),
        ("folder", "is a folder"),
        ("file/below", "file is not a folder"),
        ("way-out/x", "way-out is not a folder"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused_with_the_reason(
    files: Workspace, tmp_path: Path, path: str, says: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "way-out").symlink_to("/etc")

    for act in (files.read, files.delete, lambda path: files.write(path, "x")):
        with pytest.raises(ToolError, match=says):
            act(path)


def test_links_and_devices_are_left_alone_and_never_followed(
    files: Workspace, tmp_path: Path
) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_text("safe")
    (tmp_path / "link").symlink_to(outside)
    os.mkfifo(tmp_path / "pipe")

    for path in ("link", "pipe"):
        with pytest.raises(ToolError, match="not a plain file"):
            files.read(path)
        with pytest.raises(ToolError, match="not a plain file"):
            files.delete(path)
        files.write(path, "mine")
        assert files.read(path) == "mine"
    assert outside.read_text() == "safe"


def test_limits_name_the_limit_and_a_way_on(files: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"1001 bytes; a file may have 1000\. Write less"):
        files.write("large", "x" * 1001)
    for number in range(2):
        files.write(f"{number}", "x" * 1000)
    with pytest.raises(ToolError, match="together may have 2500 bytes"):
        files.write("2", "x" * 501)
    files.write("1", "small again")
    for number in range(2, 5):
        files.write(f"{number}", "x")
    with pytest.raises(ToolError, match="may have 5 files"):
        files.write("5", "x")
    (tmp_path / "huge").write_bytes(b"x" * 2000)
    with pytest.raises(ToolError, match="too much to read at once"):
        files.read("huge")


def test_what_is_shown_of_many_files_or_a_long_one_is_cut(tmp_path: Path) -> None:
    files = Workspace(str(tmp_path), Limits())
    for number in range(301):
        (tmp_path / f"{number:03}").touch()
    assert files.listing().splitlines()[-2:] == ["299 (0 bytes)", "... and 1 more"]
    (tmp_path / "300").unlink()
    assert files.listing().splitlines()[-1] == "299 (0 bytes)"
    (tmp_path / "000").write_text("x" * 60_000)
    assert files.read("000") == "x" * 60_000
    (tmp_path / "000").write_text("x" * 60_001)
    assert files.read("000") == "x" * 60_000 + "\n[... cut ...]"


def test_a_file_at_the_limits_is_written_and_read(tmp_path: Path) -> None:
    files = Workspace(str(tmp_path), Limits(files=1, file_bytes=10, total_bytes=10))
    files.write("a", "x" * 10)
    files.write("a", "y" * 10)

    assert files.read("a") == "y" * 10


def test_a_disk_that_refuses_is_an_answer_to_the_model(files: Workspace, tmp_path: Path) -> None:
    # Linux can't read this file at its beginning, and makes and deletes none in its folder.
    kernel = Workspace("/proc/self/task", LIMITS)
    with pytest.raises(ToolError, match="can't be read: "):
        kernel.read(f"{os.getpid()}/mem")
    with pytest.raises(ToolError, match="can't be deleted: "):
        kernel.delete(f"{os.getpid()}/mem")
    long = "/".join(["x" * 50] * 4)
    beside = Workspace(str(tmp_path / ("y" * 250)), LIMITS)
    for _ in range(20):
        beside = Workspace(beside._folder + "/" + "y" * 250, LIMITS)
    with pytest.raises(ToolError, match="can't be written: File name too long"):
        beside.write(long, "x")


def test_an_edit_must_match_once_to_the_character(files: Workspace) -> None:
    files.write("a", "one two two")

    with pytest.raises(ToolError, match=r"not in a\. Blanks"):
        files.edit("a", "One", "x")
    with pytest.raises(ToolError, match="2 times"):
        files.edit("a", "two", "x")
    with pytest.raises(ToolError, match="old_text is empty"):
        files.edit("a", "", "x")
    with pytest.raises(ToolError, match="There is no file b"):
        files.edit("b", "one", "x")
    assert files.read("a") == "one two two"


def test_a_binary_file_is_said_to_be_one(files: Workspace, tmp_path: Path) -> None:
    (tmp_path / "icon.png").write_bytes(b"\x89PNG\xff")

    with pytest.raises(ToolError, match="not UTF-8 text"):
        files.read("icon.png")


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ("{", "not JSON"),
        ('{"kind": "ruby"}', "kind must be one of"),
        ('{"kind": "python", "start": ["sh", "-c", "x"]}', "start must begin with"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_not_written(
    files: Workspace, manifest: str, says: str
) -> None:
    with pytest.raises(ToolError, match=says):
        files.write("spawn.json", manifest)
    assert files.empty
