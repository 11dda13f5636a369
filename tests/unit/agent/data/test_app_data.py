"""Which files of the running app are copied to its next version, and that no copy is torn."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent.data import survey
from agent.data.app_data import REPLACED, SPARE_BYTES, AppData
from agent.data.entries import SQLITE_HEADER

from orchestrator.contract.trees import Facts, facts_of, walk_files

BLOCK = 4096
"""What the smallest file takes."""


@pytest.fixture
def current(tmp_path: Path) -> Path:
    folder = tmp_path / "current"
    folder.mkdir()
    return folder


@pytest.fixture
def following(tmp_path: Path) -> Path:
    folder = tmp_path / "following"
    folder.mkdir()
    return folder


@contextlib.contextmanager
def database(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A database with one row, which its app keeps open."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE rows (number INTEGER)")
        connection.execute("INSERT INTO rows VALUES (1)")
        yield connection


def rows_of(path: Path) -> list[int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [row[0] for row in connection.execute("SELECT number FROM rows ORDER BY number")]


def facts_in(folder: Path) -> dict[str, Facts]:
    return {path: facts_of(details) for path, details in walk_files(str(folder))}


def files_in(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.*")}


def test_files_that_the_app_made_are_copied_and_sources_and_new_files_are_not(
    current: Path, following: Path
) -> None:
    for folder, names in {
        current: ["main.py", "gone.py", "data/app.db", "made.txt", "pages", "__pycache__/x.pyc"],
        following: ["main.py", "made.txt", "pages/one.html"],
    }.items():
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{name} of {folder.name}")
    facts = facts_in(current)
    data = AppData(str(current), {name: facts[name] for name in ("main.py", "gone.py")})
    data.copy(str(following), {"main.py", "made.txt", "pages/one.html"})

    assert files_in(following) == {
        "main.py": "main.py of following",
        "made.txt": "made.txt of following",
        "pages/one.html": "pages/one.html of following",
        "data/app.db": "data/app.db of current",
    }
    assert not data.has_changed()


def delivered(current: Path, following: Path, *names: str) -> AppData:
    """The data of an app that was delivered with these files. The next version brings them, too."""
    for folder in (current, following):
        for name in names:
            (folder / name).write_text("delivered")
    data = AppData(str(current), facts_in(current))
    data.note_bundle(str(current))
    return data


def test_a_delivered_file_is_the_users_once_the_app_has_written_to_it(
    current: Path, following: Path
) -> None:
    data = delivered(current, following, "list.json", "main.py", "deleted.json", "edited.json")
    (current / "list.json").write_text("the users'")
    (current / "deleted.json").write_text("the users', too")
    (current / "edited.json").write_text("the users' of old")
    (following / "edited.json").write_text("the model's")
    (following / "deleted.json").unlink()
    (following / "main.py").write_text("the model's")
    data.copy(str(following), {"list.json", "main.py", "edited.json"})

    assert files_in(following) == {
        "list.json": "the users'",
        "main.py": "the model's",
        "deleted.json": "the users', too",
        "edited.json": "the model's",
    }
    assert not data.has_changed()


def test_a_delivered_file_that_is_written_to_only_after_the_copy_goes_with_the_update(
    current: Path, following: Path
) -> None:
    data = delivered(current, following, "list.json")
    data.copy(str(following), {"list.json"})
    assert not data.has_changed()
    (current / "list.json").write_text("the users'")
    assert data.has_changed()
    data.update()

    assert files_in(following) == {"list.json": "the users'"}


def test_a_delivered_database_stays_the_users_whatever_a_command_of_the_model_does(
    current: Path, following: Path
) -> None:
    for folder in (current, following):
        with database(folder / "notes.db", "delete"):
            pass
    data = AppData(str(current), facts_in(current))
    data.note_bundle(str(following))
    with contextlib.closing(sqlite3.connect(following / "notes.db")) as connection:
        connection.execute("CREATE TABLE of_the_model (number INTEGER)")
    with contextlib.closing(sqlite3.connect(current / "notes.db")) as connection:
        connection.execute("INSERT INTO rows VALUES (2)")
        connection.commit()
    data.copy(str(following), {"notes.db"})

    assert rows_of(following / "notes.db") == [1, 2]


def test_a_delivered_file_that_nobody_wrote_to_goes_with_the_next_version(
    current: Path, following: Path
) -> None:
    data = delivered(current, following, "old.css", "kept.css")
    (following / "old.css").unlink()
    data.copy(str(following), {"kept.css"})

    assert files_in(following) == {"kept.css": "delivered"}


def test_a_delivered_file_that_the_app_has_deleted_stays_away_unless_the_change_edits_it(
    current: Path, following: Path
) -> None:
    for folder in (current, following):
        (folder / "seeds" / "old").mkdir(parents=True)
        (folder / "pages").mkdir()
    data = delivered(
        current, following, "seeds/old/a.json", "seeds/b.json", "edited.json", "pages/x", "kept"
    )
    for name in ("seeds/old/a.json", "seeds/b.json", "edited.json", "pages/x"):
        (current / name).unlink()
    for name in ("seeds/old", "seeds"):
        (current / name).rmdir()
    (following / "edited.json").write_text("the model's")
    data.copy(str(following), {path for path, _ in walk_files(str(following))})

    assert sorted(str(path.relative_to(following)) for path in following.rglob("*")) == [
        *("edited.json", "kept", "pages")
    ]
    assert not data.has_changed()


def test_a_delivered_file_that_is_away_for_a_while_comes_back(
    current: Path, following: Path
) -> None:
    for folder in (current, following):
        (folder / "seeds").mkdir()
    data = delivered(current, following, "seeds/a.json", "kept")
    (current / "seeds").rename(current / "away")
    data.copy(str(following), {"seeds/a.json", "kept"})
    assert files_in(following) == {"away/a.json": "delivered"}
    (current / "away").rename(current / "seeds")
    for _ in range(2):
        data.update()
        assert files_in(following) == {"seeds/a.json": "delivered"}
        assert not data.has_changed()


def test_an_app_that_has_deleted_everything_gets_all_of_the_next_version(
    current: Path, following: Path
) -> None:
    data = delivered(current, following, "main.py")
    (current / "main.py").unlink()
    data.copy(str(following), {"main.py"})

    assert files_in(following) == {"main.py": "delivered"}


def test_a_delivered_file_may_become_a_folder_and_a_folder_a_file(
    current: Path, following: Path
) -> None:
    for folder in (current, following):
        (folder / "folder").mkdir()
    data = delivered(current, following, "file.x", "folder/a.x", "kept.x")
    sources = {"file.x", "folder/a.x", "kept.x"}
    (current / "file.x").unlink()
    (current / "file.x").mkdir()
    (current / "file.x" / "b.x").write_text("the users'")
    (current / "folder" / "a.x").unlink()
    (current / "folder").rmdir()
    (current / "folder").write_text("the users'")
    data.copy(str(following), sources)

    assert (following / "file.x" / "b.x").read_text() == "the users'"
    assert (following / "folder").read_text() == "the users'"
    assert (following / "kept.x").exists()
    assert not data.has_changed()

    (current / "file.x" / "b.x").unlink()
    (current / "file.x").rmdir()
    (current / "file.x").write_text("again")
    (current / "folder").unlink()
    (current / "folder").mkdir()
    (current / "folder" / "c.x").write_text("again")
    data.update()

    assert files_in(following) == {
        "file.x": "again",
        "folder/c.x": "again",
        "kept.x": "delivered",
    }
    assert not data.has_changed()


def test_a_delivered_folder_that_the_change_removes_stays_with_the_data_in_it_alone(
    current: Path, following: Path
) -> None:
    for name in ("empty", "used"):
        (current / name).mkdir()
    (current / "used").chmod(0o750)
    data = delivered(current, following)
    for name in ("empty", "used"):
        (current / name / "old.css").write_text("delivered")
    data = AppData(str(current), facts_in(current))
    data.note_bundle(str(current))
    (current / "used" / "made.txt").write_text("made")
    data.copy(str(following), ())

    assert sorted(path.name for path in following.rglob("*")) == ["made.txt", "used"]
    assert (following / "used").stat().st_mode == (current / "used").stat().st_mode


def test_what_the_next_version_has_itself_is_left_out_and_named(
    current: Path, following: Path
) -> None:
    data = delivered(current, following, "edited.json")
    (current / "edited.json").write_text("the users'")
    (following / "edited.json").write_text("the model's")
    (current / "made.txt").write_text("the users'")
    (following / "made.txt").write_text("the model's")
    data.copy(str(following), {"edited.json", "made.txt"})

    assert set(files_in(following).values()) == {"the model's"}
    assert data.left_out == dict.fromkeys(("edited.json", "made.txt"), REPLACED)


def test_a_write_whose_time_is_put_back_shows(current: Path, following: Path) -> None:
    path = current / "list.json"
    path.write_text("old")
    data = AppData(str(current), {})
    data.copy(str(following), ())
    times = path.stat()
    path.write_text("new")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    data.update()

    assert files_in(following) == {"list.json": "new"}


def test_another_mode_shows_and_other_names_of_a_file_too(current: Path, following: Path) -> None:
    for name in ("a", "b", "c"):
        (current / name).write_text(name)
    (current / "d").mkdir()
    data = AppData(str(current), {})
    data.copy(str(following), ())
    (current / "a").chmod(0o600)
    (current / "d").chmod(0o700)
    (current / "c").unlink()
    os.link(current / "b", current / "c")
    assert data.has_changed()
    data.update()

    for name in ("a", "d"):
        assert (following / name).stat().st_mode == (current / name).stat().st_mode
    assert (following / "b").samefile(following / "c")
    assert not data.has_changed()


def test_a_file_whose_name_ends_like_a_journal_is_a_file_like_any_other(
    current: Path, following: Path
) -> None:
    for name in ("notes", "notes-wal", "notes-journal"):
        (current / name).write_text(name)
    data = AppData(str(current), {})
    data.copy(str(following), ())
    (current / "notes").unlink()
    data.update()

    assert sorted(path.name for path in following.iterdir()) == ["notes-journal", "notes-wal"]


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_journal_that_a_version_is_delivered_with_does_no_harm_to_the_users_database(
    current: Path, following: Path, suffix: str
) -> None:
    """A command of the model was ended in the middle: the bundle has what it left behind."""
    mode = suffix.removeprefix("-").replace("journal", "delete")
    with database(following / "app.db", mode) as connection:
        connection.execute("PRAGMA cache_spill=1")
        connection.execute("BEGIN")
        connection.execute("DELETE FROM rows")
        if suffix == "-wal":
            connection.execute("COMMIT")
        left_behind = (following / f"app.db{suffix}").read_bytes()
    for folder in (current, following):
        for path in folder.iterdir():
            path.unlink()
        with database(folder / "app.db", mode):
            pass
    for folder in (current, following):
        (folder / f"app.db{suffix}").write_bytes(left_behind)
    facts = facts_in(current)
    (current / f"app.db{suffix}").unlink()
    data = AppData(str(current), facts)
    with contextlib.closing(sqlite3.connect(current / "app.db")) as connection, connection:
        connection.execute("INSERT INTO rows VALUES (2)")
    data.copy(str(following), {"app.db", f"app.db{suffix}"})

    assert rows_of(following / "app.db") == [1, 2]
    assert [path.name for path in following.iterdir()] == ["app.db"]


def test_a_database_keeps_its_mode_time_and_names(current: Path, following: Path) -> None:
    name = os.fsdecode(b"\xff?#%41\n.db")
    with database(current / name, "DELETE"):
        pass
    (current / name).chmod(0o600)
    os.utime(current / name, ns=(1_000_000_007, 1_000_000_007))
    os.link(current / name, current / "same.db")
    AppData(str(current), {}).copy(str(following), ())

    copied = (following / name).stat()
    assert (copied.st_mode & 0o777, copied.st_mtime_ns) == (0o600, 1_000_000_007)
    assert (following / name).samefile(following / "same.db")
    assert rows_of(following / name) == [1]


def test_an_update_copies_what_was_written_and_removes_what_is_gone(
    current: Path, following: Path
) -> None:
    for name in ("same.txt", "longer.txt", "gone.txt"):
        (current / name).write_text("old")
    data = AppData(str(current), {})
    data.copy(str(following), ())
    untouched = (following / "same.txt").stat()
    (current / "longer.txt").write_text("longer")
    (current / "gone.txt").unlink()
    (current / "made.txt").write_text("made")
    assert data.has_changed()
    data.update()

    assert files_in(following) == {"same.txt": "old", "longer.txt": "longer", "made.txt": "made"}
    assert (following / "same.txt").stat().st_ino == untouched.st_ino
    assert not data.has_changed()


@pytest.mark.parametrize("mode", ["DELETE", "WAL", "TRUNCATE", "MEMORY"])
def test_a_database_that_is_open_is_copied_with_all_that_is_committed_and_nothing_else(
    current: Path, following: Path, mode: str
) -> None:
    with database(current / "a?#%41.db", mode) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO rows VALUES (2)")
        data = AppData(str(current), {})
        data.copy(str(following), ())

        assert [path.name for path in following.iterdir()] == ["a?#%41.db"]
        assert rows_of(following / "a?#%41.db") == [1]

        connection.execute("COMMIT")
        assert data.has_changed()
        data.update()
        assert rows_of(following / "a?#%41.db") == [1, 2]


def test_many_databases_that_are_kept_locked_are_waited_for_once(
    current: Path, following: Path
) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(20):
            connection = stack.enter_context(database(current / f"{number}.db", "DELETE"))
            connection.execute("BEGIN EXCLUSIVE")
        data = AppData(str(current), {})
        data.copy(str(following), ())
        assert data.lock_left_s == 0

    assert [rows_of(following / f"{number}.db") for number in range(20)] == [[1]] * 20


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_database_that_its_app_keeps_locked_is_copied_as_files_with_its_journal(
    current: Path, following: Path, mode: str
) -> None:
    with database(current / "app.db", mode) as connection:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("INSERT INTO rows VALUES (2)")
        AppData(str(current), {}).copy(str(following), ())

        assert rows_of(following / "app.db") == [1, 2]


def test_a_pipe_beside_a_database_is_not_waited_for(current: Path, following: Path) -> None:
    with database(current / "app.db", "DELETE"):
        pass
    os.mkfifo(current / "app.db-wal")
    AppData(str(current), {}).copy(str(following), ())

    assert rows_of(following / "app.db") == [1]


def test_a_file_that_only_says_that_it_is_a_database_is_copied_as_it_is(
    current: Path, following: Path
) -> None:
    (current / "app.db").write_bytes(SQLITE_HEADER + b"nonsense")
    AppData(str(current), {}).copy(str(following), ())

    assert (following / "app.db").read_bytes() == SQLITE_HEADER + b"nonsense"


def test_a_file_that_is_being_rewritten_is_copied_once_it_is_whole(
    current: Path, following: Path
) -> None:
    parts = [b"[1", b",2", b",3]"]
    path = current / "rows.json"
    path.write_bytes(b"")  # as it is once its app has opened it to write

    def write_part(_: float) -> None:
        if parts:
            path.write_bytes(path.read_bytes() + parts.pop(0))

    data = AppData(str(current), {}, pause=write_part)
    data.copy(str(following), ())

    assert (following / "rows.json").read_text() == "[1,2,3]"
    assert not data.has_changed()


def test_a_file_that_is_written_to_without_end_is_copied_as_it_is_and_counts_as_changed(
    current: Path, following: Path
) -> None:
    path = current / "app.log"
    path.write_text("line\n")
    data = AppData(
        str(current), {}, pause=lambda _: path.write_text(path.read_text() + "line\n") and None
    )
    data.copy(str(following), ())

    assert (following / "app.log").read_text().startswith("line\nline\n")
    assert data.has_changed()


def test_more_files_than_a_version_may_get_are_refused(
    current: Path, following: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "ENTRIES_MAX", 2)
    for name in ("1", "2"):
        (current / name).write_text(name)
    data = AppData(str(current), {})
    data.copy(str(following), ())
    (current / "3").write_text("3")

    with pytest.raises(OSError, match="more than 2 files and folders"):
        data.update()


def test_data_that_does_not_fit_a_second_time_is_not_copied_at_all(
    current: Path, following: Path
) -> None:
    (current / "upload.bin").write_bytes(b"x" * BLOCK)
    data = AppData(str(current), {}, free_bytes=lambda _: SPARE_BYTES + BLOCK - 1)
    for attempt in (data.check_room, lambda: data.copy(str(following), ())):
        with pytest.raises(OSError, match="No space left on device"):
            attempt()
    assert not list(following.iterdir())

    roomy = AppData(str(current), {}, free_bytes=lambda _: SPARE_BYTES + BLOCK)
    roomy.check_room()
    roomy.copy(str(following), ())
    assert (following / "upload.bin").stat().st_size == BLOCK


def test_only_what_is_copied_again_needs_room(current: Path, following: Path) -> None:
    free = [SPARE_BYTES + 2 * BLOCK]
    (current / "old.bin").write_bytes(b"x" * BLOCK * 2)
    data = AppData(str(current), {}, free_bytes=lambda _: free[0])
    data.copy(str(following), ())

    free[0] = SPARE_BYTES + BLOCK
    (current / "new.bin").write_bytes(b"x" * BLOCK)
    data.update()
    assert (following / "new.bin").exists()

    (current / "new.bin").write_bytes(b"x" * (BLOCK + 1))
    with pytest.raises(OSError, match="No space left on device"):
        data.update()


def test_room_is_counted_in_blocks_and_once_for_all_names_of_a_file(
    current: Path, following: Path
) -> None:
    for number in range(3):
        (current / str(number)).write_text("x")
        os.link(current / str(number), current / f"same-{number}")
    with pytest.raises(OSError, match="No space left on device"):
        AppData(str(current), {}, free_bytes=lambda _: SPARE_BYTES + 3 * BLOCK - 1).check_room()

    AppData(str(current), {}, free_bytes=lambda _: SPARE_BYTES + 3 * BLOCK).check_room()


def test_an_app_without_data_needs_no_room(current: Path, following: Path) -> None:
    data = AppData(str(current), {}, free_bytes=lambda _: 0)
    data.check_room()
    data.copy(str(following), ())
