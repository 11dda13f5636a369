"""Folders that a program has filled are walked and deleted, whatever it made there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.contract import archive
from orchestrator.contract.bundles import FILES_MAX, BundleInvalid
from orchestrator.contract.trees import ENTRIES_MAX, open_plain, remove_tree, walk_files

REPOSITORY = Path(archive.__file__).parents[2]
# For root nothing is locked. The agent is an ordinary user.
WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
REMOVE = """
import sys
from orchestrator.contract.trees import remove_tree
for path in sys.argv[1:]:
    remove_tree(path)
"""
UNPACK = """
import sys
from orchestrator.contract import archive
archive.unpack(sys.stdin.buffer.read(), sys.argv[1])
"""
DEPTH = 3_000  # more than Python recurses, and longer than any path


def make_deep(folder: Path) -> None:
    """A file at the end of a chain of folders."""
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("deep", dir_fd=fd)
        below = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An app's folder."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "spawn.json").write_text('{"kind": "static"}')
    (folder / "index.html").write_text("app")
    return folder


def run_as_anybody(program: str, *arguments: str, given: bytes = b"") -> None:
    """Run a program of Python as somebody whom locks keep out."""
    prefix = WITHOUT_CAPABILITIES if os.geteuid() == 0 else ()
    argv = (*prefix, sys.executable, "-c", program, *arguments)
    subprocess.run(argv, input=given, cwd=REPOSITORY, check=True, timeout=60)


def paths_in(folder: Path) -> set[str]:
    return {path for path, _ in walk_files(str(folder))}


def test_only_plain_files_are_walked_and_no_link_is_followed(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("index.html")
    (folder / "round").symlink_to(folder)
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "x.js").write_text("x")
    (folder / os.fsdecode(b"not-utf8-\xff")).write_text("x")

    assert paths_in(folder) == {"spawn.json", "index.html", "not-utf8-\udcff"}


def test_folders_too_deep_are_named_and_deleted_all_the_same(folder: Path) -> None:
    make_deep(folder)
    skipped: list[str] = []
    files = {path for path, _ in walk_files(str(folder), lambda path, why: skipped.append(why))}

    assert files == {"spawn.json", "index.html"}
    assert skipped == ["the folders are too deep"]
    with pytest.raises(BundleInvalid, match="the folders are too deep"):
        archive.pack(str(folder))
    remove_tree(str(folder))
    assert not folder.exists()


def test_what_is_deleted_may_be_locked_or_no_folder_at_all(folder: Path, tmp_path: Path) -> None:
    (folder / "locked" / "below").mkdir(parents=True)
    (folder / "locked" / "below" / "x").write_text("x")
    (folder / "locked" / "below").chmod(0)
    (folder / "locked").chmod(stat.S_IRUSR)
    elsewhere, link, plain = tmp_path / "elsewhere", tmp_path / "link", tmp_path / "plain"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("x")
    link.symlink_to(elsewhere)
    (folder / "out").symlink_to(elsewhere)
    plain.write_text("x")

    run_as_anybody(REMOVE, *map(str, (folder, link, plain, tmp_path / "never-there")))

    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    assert (elsewhere / "kept").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of somebody else")
def test_what_can_not_be_deleted_below_many_folders_takes_no_longer(folder: Path) -> None:
    resisting = folder / "a" / "b" / "c" / "d" / "e" / "f" / "theirs"
    resisting.mkdir(parents=True)
    (resisting / "x").write_text("x")
    (folder / "a" / "b" / "plain").write_text("x")
    resisting.chmod(0o700)
    os.chown(resisting, 65534, 65534)
    run_as_anybody(REMOVE, str(folder))
    assert (resisting / "x").exists()
    assert not (folder / "a" / "b" / "plain").exists()


def test_a_walk_has_an_end_however_many_files_there_are(folder: Path) -> None:
    many = folder / "many"
    many.mkdir()
    source = many / "0"
    source.touch()
    for number in range(1, ENTRIES_MAX):
        os.link(source, many / str(number))
    skipped: list[str] = []
    count = sum(1 for _ in walk_files(str(folder), lambda path, why: skipped.append(why)))

    assert count < ENTRIES_MAX
    assert skipped == [f"there are more than {ENTRIES_MAX} files and folders"]
    with pytest.raises(BundleInvalid, match=f"at most {FILES_MAX} files"):
        archive.pack(str(folder))
    remove_tree(str(folder))
    assert not folder.exists()


def test_a_pipe_or_a_link_is_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("index.html")

    for name in ("pipe", "link", "missing", "."):
        with pytest.raises(OSError, match=r"\S"):
            open_plain(str(folder / name))
    with open_plain(str(folder / "index.html")) as source:
        assert source.read() == b"app"


def test_a_bundle_is_unpacked_in_place_of_a_folder_that_resists(folder: Path) -> None:
    packed = archive.pack(str(folder))
    make_deep(folder)
    (folder / "locked").mkdir()
    (folder / "locked" / "x").write_text("x")
    (folder / "locked").chmod(0)

    run_as_anybody(UNPACK, str(folder), given=packed)

    assert paths_in(folder) == {"spawn.json", "index.html"}
