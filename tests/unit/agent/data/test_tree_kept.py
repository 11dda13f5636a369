"""A copy has all that an app's folder has: kinds, bytes, modes, times, links, holes and names."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from agent.data.app_data import AppData
from agent.data.folder_tree import KEPT_MAX
from agent.data.survey import PATH_MAX_CHARS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.contract.trees import remove_tree

LONG_AGO_NS = 1_000_000_000_123_456_789
HOLE_BYTES = 32 * 1024 * 1024
MANY = 50_000
ROOT = Path(__file__).parents[4]
# For root nothing is locked. The agent is an ordinary user.
WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


class Entry(NamedTuple):
    """What is compared of a file, folder or link."""

    mode: int
    time_ns: int
    content: bytes = b""  # or where a link leads
    names: frozenset[str] = frozenset()  # all of a file with several


@pytest.fixture
def current(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "current"
    folder.mkdir()
    yield folder
    remove_tree(str(folder))  # it may be deeper than pytest can delete


@pytest.fixture
def following(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "following"
    folder.mkdir()
    yield folder
    remove_tree(str(folder))  # it may be deeper than pytest can delete


def tree_of(folder: Path) -> dict[str, Entry]:
    """All that is below a folder, by path."""
    entries: dict[str, Entry] = {}
    names: dict[int, set[str]] = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            place = Path(parent, name)
            path = str(place.relative_to(folder))
            details = place.lstat()
            content = b""
            if stat.S_ISLNK(details.st_mode):
                content = os.fsencode(place.readlink())
            elif stat.S_ISREG(details.st_mode):
                content = place.read_bytes()
            entries[path] = Entry(details.st_mode, details.st_mtime_ns, content)
            if details.st_nlink > 1 and not stat.S_ISDIR(details.st_mode):
                names.setdefault(details.st_ino, set()).add(path)
    for group in names.values():
        for path in group:
            entries[path] = entries[path]._replace(names=frozenset(group))
    return entries


def copied(current: Path, following: Path) -> AppData:
    data = AppData(str(current), {})
    data.copy(str(following), ())
    return data


def make_empty_folders(folder: Path) -> None:
    (folder / "a" / "b" / "c").mkdir(parents=True)
    (folder / "a" / "d").mkdir()


def make_modes(folder: Path) -> None:
    for mode in (0o600, 0o755, 0o400, 0o444, 0o640, 0o777):
        (folder / f"file-{mode:o}").write_text("x")
        (folder / f"file-{mode:o}").chmod(mode)
        (folder / f"folder-{mode:o}").mkdir()
        (folder / f"folder-{mode:o}" / "x").write_text("x")
    for mode in (0o700, 0o755, 0o500, 0o1777, 0o2770):
        (folder / f"folder-{mode:o}").mkdir(exist_ok=True)
        (folder / f"folder-{mode:o}").chmod(mode)


def make_times(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "file").write_text("x")
    (folder / "a" / "link").symlink_to("file")
    for name in ("a/file", "a/link", "a"):
        os.utime(folder / name, ns=(LONG_AGO_NS, LONG_AGO_NS), follow_symlinks=False)


def make_links(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "file").write_text("x")
    texts = ["a/file", "a", "missing", "a/./b/../file", "/etc/passwd", "/", "..", "../current.txt"]
    for number, text in enumerate(texts):
        (folder / f"link-{number}").symlink_to(text)
    (folder / "a" / "b" / "up").symlink_to("../../a/file")
    (folder / "a" / "round").symlink_to("../a")


def make_hard_links(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "file").write_text("x")
    (folder / "link").symlink_to("a/file")
    os.link(folder / "a" / "file", folder / "same")
    os.link(folder / "a" / "file", folder / "a" / "same")
    os.link(folder / "link", folder / "same-link", follow_symlinks=False)


def make_names(folder: Path) -> None:
    names = [b"\xff\xfe", b"a\nb", b"case", b"CASE", b" ", b"-rf", b"*", b"\\", b"\x01", b"n" * 255]
    for name in (*names, "ä".encode(), "a\u0308".encode()):
        below = folder / os.fsdecode(b"f-" + name[:250])
        below.mkdir()
        (below / os.fsdecode(name)).write_bytes(name)


def make_deep(folder: Path) -> None:
    below = folder.joinpath(*["d"] * (PATH_MAX_CHARS // 2 - 1))
    below.mkdir(parents=True)
    (below / "x").write_text("x")
    side = folder.joinpath(*["d"] * (KEPT_MAX + 2), "e", "f")
    side.mkdir(parents=True)
    (side / "x").write_text("x")


CASES: Mapping[str, Callable[[Path], None]] = {
    "empty folders": make_empty_folders,
    "modes": make_modes,
    "times": make_times,
    "links": make_links,
    "files and links with several names": make_hard_links,
    "names of any bytes": make_names,
    "deep folders": make_deep,
}


@pytest.mark.parametrize("case", CASES)
def test_a_copy_keeps(current: Path, following: Path, case: str) -> None:
    CASES[case](current)
    data = copied(current, following)

    assert tree_of(following) == tree_of(current)
    assert data.left_out == {}
    assert not data.has_changed()


@pytest.mark.parametrize("case", CASES)
def test_an_update_removes_and_makes_it_again(current: Path, following: Path, case: str) -> None:
    CASES[case](current)
    data = copied(current, following)
    remove_tree(str(current))
    current.mkdir()
    assert data.has_changed()
    data.update()
    assert tree_of(following) == {}

    CASES[case](current)
    data.update()
    assert tree_of(following) == tree_of(current)
    assert not data.has_changed()


def test_a_link_to_the_apps_own_folder_by_its_full_path_leads_to_that_of_the_next_version(
    current: Path, following: Path
) -> None:
    (current / "a" / "b").mkdir(parents=True)
    for folder in ("", "a/b"):
        (current / folder / "full").symlink_to(current / "a" / "file")
        (current / folder / "through").symlink_to(f"{'../' * len(Path(folder).parts)}../current/a")
        (current / folder / "root").symlink_to(current)
        (current / folder / "beside").symlink_to(f"{current}-beside/x")
    copied(current, following)

    texts = {path: entry.content for path, entry in tree_of(following).items() if entry.content}
    assert texts == {
        "full": b"a/file",
        "through": b"a",
        "root": b".",
        "beside": f"{current}-beside/x".encode(),
        "a/b/full": b"../file",
        "a/b/through": b"..",
        "a/b/root": b"../..",
        "a/b/beside": f"{current}-beside/x".encode(),
    }


def test_holes_stay_holes_and_need_no_room(current: Path, following: Path) -> None:
    for name, bytes_at in {"begin": 0, "middle": HOLE_BYTES // 2, "end": HOLE_BYTES - 1}.items():
        with (current / name).open("wb") as file:
            file.truncate(HOLE_BYTES)
            file.seek(bytes_at)
            file.write(b"x")
    with (current / "empty").open("wb") as file:
        file.truncate(HOLE_BYTES)
    AppData(str(current), {}, free_bytes=lambda _: HOLE_BYTES).copy(str(following), ())

    assert tree_of(following) == tree_of(current)
    for path in following.iterdir():
        assert path.stat().st_blocks <= (current / path.name).stat().st_blocks


def test_what_is_no_data_is_left_out_and_named(current: Path, following: Path) -> None:
    os.mkfifo(current / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(current / "socket"))
        if os.geteuid() == 0:
            os.mknod(current / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        (current / "kept").write_text("x")
        data = copied(current, following)

    assert list(tree_of(following)) == ["kept"]
    assert {"pipe": "a pipe", "socket": "a socket"}.items() <= data.left_out.items()
    assert data.left_out.get("device", "a device") == "a device"
    assert not data.has_changed()


def test_paths_that_are_too_long_are_left_out_and_named(current: Path, following: Path) -> None:
    fd = os.open(current, os.O_RDONLY)
    for _ in range(PATH_MAX_CHARS):
        os.mkdir("dd", dir_fd=fd)
        below = os.open("dd", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    data = copied(current, following)

    assert list(data.left_out.values()) == ["its path is too long"]
    assert len(max(tree_of(following))) == PATH_MAX_CHARS - 2


def test_as_many_files_as_fit_in_an_app_are_copied(current: Path, following: Path) -> None:
    for number in range(MANY):
        if number % 500 == 0:
            (current / str(number)).mkdir()
        (current / str(number // 500 * 500) / f"{number}.json").touch()
    data = copied(current, following)
    assert not data.has_changed()
    (current / "500" / "777.json").write_text("written")
    data.update()

    assert sum(len(files) for _, _, files in os.walk(following)) == MANY
    assert (following / "500" / "777.json").read_text() == "written"
    assert not data.has_changed()


LOCKED = """
import os, sys
from agent.data.app_data import AppData
from pathlib import Path
current, following = map(Path, sys.argv[1:])
(current / "locked" / "below").mkdir(parents=True)
(current / "locked" / "below" / "private").write_text("1")
(current / "locked" / "below" / "private").chmod(0o400)
(current / "locked" / "empty").touch(0o000)
(current / "unread").write_text("x")
(current / "unread").chmod(0o200)
(current / "closed").mkdir()
(current / "closed").chmod(0o300)
(current / "locked").chmod(0o500)
data = AppData(str(current), {})
data.copy(str(following), ())
assert not data.has_changed()
(current / "locked").chmod(0o700)
(current / "locked" / "below" / "more").write_text("2")
(current / "locked" / "below" / "private").unlink()
(current / "locked" / "below").chmod(0o500)
(current / "locked").chmod(0o500)
data.update()
assert not data.has_changed()
print(sorted(data.left_out.items()))
"""


def test_what_is_locked_is_copied_as_far_as_it_can_be_read(current: Path, following: Path) -> None:
    prefix = WITHOUT_CAPABILITIES if os.geteuid() == 0 else ()
    answer = subprocess.run(
        [*prefix, sys.executable, "-c", LOCKED, str(current), str(following)],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'runtime-image'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.stderr == ""
    assert answer.stdout == "[('closed', 'Permission denied'), ('unread', 'Permission denied')]\n"
    (following / "closed").chmod(0o300)
    (current / "unread").unlink()
    tree = tree_of(following)
    assert sorted(tree) == ["closed", "locked", "locked/below", "locked/below/more", "locked/empty"]
    assert tree == tree_of(current)


NAMES = st.sampled_from(["a", "b", "c", "\udcff"])
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o400])
TIMES = st.integers(10**9, 2 * 10**9).map(lambda time_s: time_s * 10**9 + 7)
FILES = st.tuples(st.just("file"), MODES, TIMES, st.binary(max_size=8))
LINKS = st.tuples(st.just("link"), st.sampled_from(["a", "../b", "/etc/passwd", "./c/.."]), TIMES)
OTHER_NAMES = st.tuples(st.just("name"), st.integers(0, 5))
ENTRIES = st.recursive(
    st.one_of(FILES, LINKS, OTHER_NAMES),
    lambda entries: st.tuples(
        st.just("folder"),
        st.sampled_from([0o755, 0o700, 0o555]),
        TIMES,
        st.dictionaries(NAMES, entries, max_size=4),
    ),
    max_leaves=12,
)
TREES = st.dictionaries(NAMES, ENTRIES, max_size=4)


def make_tree(folder: Path, tree: Mapping[str, tuple[object, ...]], files: list[Path]) -> None:
    for name, entry in tree.items():
        path = folder / name
        match entry:
            case ("file", int(mode), int(time_ns), bytes(content)):
                path.write_bytes(content)
                path.chmod(mode)
                files.append(path)
            case ("link", str(text), int(time_ns)):
                path.symlink_to(text)
                files.append(path)
            case ("name", int(number)):
                if number < len(files):
                    os.link(files[number], path, follow_symlinks=False)
                continue
            case ("folder", int(mode), int(time_ns), dict(below)):
                path.mkdir()
                make_tree(path, below, files)
                path.chmod(mode)
            case _:
                raise AssertionError(entry)
        os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(trees=st.lists(TREES, min_size=1, max_size=3))
def test_any_tree_that_goes_in_comes_out(
    tmp_path: Path, trees: list[Mapping[str, tuple[object, ...]]]
) -> None:
    current, following = tmp_path / "current", tmp_path / "following"
    for folder in (current, following):
        remove_tree(str(folder))
        folder.mkdir()
    data = AppData(str(current), {})
    for number, tree in enumerate(trees):
        remove_tree(str(current))
        current.mkdir()
        make_tree(current, tree, [])
        if number:  # the time of a folder in which nothing changed is that of the copy
            data.update()
            assert without_times(tree_of(following)) == without_times(tree_of(current))
        else:
            data.copy(str(following), ())
            assert tree_of(following) == tree_of(current)
        assert not data.has_changed()


def without_times(tree: Mapping[str, Entry]) -> dict[str, Entry]:
    """Those of folders."""
    return {
        path: entry._replace(time_ns=0) if stat.S_ISDIR(entry.mode) else entry
        for path, entry in tree.items()
    }
