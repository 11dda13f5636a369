"""A hostile app swaps folders, files and links while its data is copied: nothing leaves its folder.

What is copied is never read from elsewhere, and nothing is written elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent.data import folder_tree
from agent.data.app_data import AppData
from agent.data.folder_tree import FolderTree
from agent.data.sqlite_copy import Database, copy_database

SECRET = b"secret of somebody else"


class Scene:
    """An app's folder, that of its next version, and what is nobody's to read or write."""

    def __init__(self, folder: Path) -> None:
        self.current, self.following, self.outside = (
            folder / name for name in ("current", "following", "outside")
        )
        for path in (self.current / "d", self.following, self.outside):
            path.mkdir(parents=True)
        (self.current / "d" / "x").write_bytes(b"own")
        (self.outside / "x").write_bytes(SECRET)

    def turn_into_link(self, name: str, to: Path) -> None:
        (self.current / name).rename(self.current / f"{name}-before")
        (self.current / name).symlink_to(to)

    def is_unharmed(self) -> bool:
        """Whether what is outside is as it was, and nowhere else."""
        copied = [
            path.read_bytes()
            for path in self.following.rglob("*")
            if path.is_file() and not path.is_symlink()
        ]
        kept = {path.name: path.read_bytes() for path in self.outside.iterdir()}
        return SECRET not in copied and kept == {"x": SECRET}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.mark.parametrize(("name", "to"), [("d", "."), ("d/x", "x")])
def test_what_turns_into_a_link_after_the_first_look_is_copied_as_a_link(
    scene: Scene, name: str, to: str
) -> None:
    pauses = itertools.count()

    def swap(_: float) -> None:
        if not next(pauses):
            scene.turn_into_link(name, scene.outside / to)

    data = AppData(str(scene.current), {}, pause=swap)
    data.copy(str(scene.following), ())
    data.update()

    assert scene.is_unharmed()
    assert (scene.following / name).readlink() == scene.outside / to
    assert not data.has_changed()


def test_swaps_at_any_moment_give_nothing_away(scene: Scene) -> None:
    """The real race: a thread exchanges a folder and a link all the time."""
    is_over = threading.Event()
    link, folder = scene.current / "link", scene.current / "d"
    link.symlink_to(scene.outside)

    def swap() -> None:
        spare = scene.current / "spare"
        while not is_over.is_set():
            folder.rename(spare)
            link.rename(folder)
            folder.rename(link)
            spare.rename(folder)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for number in range(200):
            target = scene.following / str(number)
            target.mkdir()
            AppData(str(scene.current), {}, pause=lambda _: None).copy(str(target), ())
            assert scene.is_unharmed()
    finally:
        is_over.set()
        swapping.join()


def test_a_link_in_the_place_of_a_copy_is_not_written_through(scene: Scene) -> None:
    (scene.current / "y").write_bytes(b"own")
    with contextlib.closing(sqlite3.connect(scene.current / "z.db")) as connection:
        connection.execute("CREATE TABLE rows (number INTEGER)")
    for name in ("y", "z.db"):
        (scene.following / name).symlink_to(scene.outside / "x")
    AppData(str(scene.current), {}).copy(str(scene.following), ())

    assert scene.is_unharmed()
    assert (scene.following / "y").read_bytes() == b"own"
    assert (scene.following / "z.db").read_bytes() == (scene.current / "z.db").read_bytes()


def test_a_link_in_the_place_of_a_folder_is_not_written_through(scene: Scene) -> None:
    (scene.following / "d").symlink_to(scene.outside)
    with pytest.raises(FileExistsError):
        AppData(str(scene.current), {}).copy(str(scene.following), ())

    assert scene.is_unharmed()


def test_an_app_whose_folder_is_a_link_has_no_data(scene: Scene) -> None:
    scene.current.rename(scene.current.with_name("before"))
    scene.current.symlink_to(scene.outside)
    data = AppData(str(scene.current), {})
    with pytest.raises(OSError, match="Not a directory"):
        data.copy(str(scene.following), ())

    assert data.has_changed()
    assert scene.is_unharmed()


@pytest.mark.parametrize("swapped", ["source", "target"])
def test_a_database_that_is_another_file_by_now_is_not_touched(
    tmp_path: Path, swapped: str
) -> None:
    """SQLite takes a path, and follows links in it."""
    own, other = tmp_path / "own.db", tmp_path / "other.db"
    for path in (own, other):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE rows (number INTEGER)")
    empty = tmp_path / "copy.db"
    empty.touch()
    before = other.read_bytes()

    def database(path: Path) -> Database:
        details = path.stat()
        return Database(str(path), details.st_dev, details.st_ino)

    source, target = database(own), database(empty)
    if swapped == "source":
        source = source._replace(path=str(other))
    else:
        target = target._replace(path=str(other))

    assert not copy_database(source, target, lock_limit_s=1.0)
    assert empty.stat().st_size == 0
    assert other.read_bytes() == before


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.contextmanager
def without_descriptors() -> Iterator[None]:
    """Use up all descriptors of this process, as the visitors of an app may do."""
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for fd in taken:
            os.close(fd)


def test_what_can_not_be_opened_for_now_is_not_taken_for_deleted(scene: Scene) -> None:
    """Without a descriptor left: the copy fails, rather than to lose data."""
    data = AppData(str(scene.current), {})
    data.copy(str(scene.following), ())
    (scene.current / "d" / "x").write_bytes(b"longer")
    with without_descriptors():
        assert data.has_changed()
        with pytest.raises(OSError, match="Too many open files") as caught:
            data.update()

    assert caught.value.errno == errno.EMFILE
    assert (scene.following / "d" / "x").read_bytes() == b"own"


def test_all_that_is_opened_is_closed(scene: Scene) -> None:
    deep = scene.current.joinpath(*["d"] * (folder_tree.KEPT_MAX + 10))
    deep.mkdir(parents=True)
    (deep / "x").write_bytes(b"x")
    os.mkfifo(deep / "pipe")
    before = open_files()
    AppData(str(scene.current), {}).copy(str(scene.following), ())
    with FolderTree(str(scene.current)) as tree, contextlib.suppress(OSError):
        tree.folder("d/missing/x")

    assert open_files() == before
