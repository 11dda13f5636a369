"""What is odd in the state folder is named in a sentence that says what to do, before anything
starts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.domain import errors
from orchestrator.entrypoints import prepare
from orchestrator.entrypoints.liveness import exits
from tests.e2e.installation import free_ports

_ROOT = Path(__file__).resolve().parents[3]
_DEADLINE_S = 60
_NOISE = bytes(range(256)) * 40


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not in pytest's folder, which is closed to the proxy's workers."""
    with tempfile.TemporaryDirectory(prefix="spawn-odd-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def tables_of_others(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")


def damaged(path: Path) -> None:
    """A database whose disk has lost most of it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE a (b); CREATE TABLE c (d)")
    path.write_bytes(path.read_bytes()[:4096] + _NOISE)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(_NOISE[:500])


def written(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


BACKUP, AWAY = "put it back from your backup", "move it away to begin anew"


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("secret", written(b""), f"secret is empty, as after a loss of power: {BACKUP}"),
        ("secret", written(b" \n"), f"secret is empty, as after a loss of power: {BACKUP}"),
        ("secret", written(_NOISE), BACKUP),
        ("secret", written(b"short"), BACKUP),
        ("secret", written(b"a" * 40 + b"\n" + b"b" * 40), BACKUP),
        ("instance", written(_NOISE), BACKUP),
        ("instance", written(b"../other"), BACKUP),
        ("operator.key", written(_NOISE), "the next start makes another one"),
        ("ssh/id_ed25519", written(b"garbage"), "no private SSH key"),
        ("spawn.db", written(_NOISE), AWAY),
        ("spawn.db", damaged, AWAY),
        ("spawn.db", Path.mkdir, "can't be opened as a database"),
        ("spawn.db", tables_of_others, "tables of another program, such as notes"),
    ],
)
def test_a_file_that_is_odd_is_named_with_what_to_do(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    make: Callable[[Path], object],
    sentence: str,
) -> None:
    monkeypatch.setenv("SPAWN_STATE_DIR", str(folder))
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    assert prepare.main() == exits.UNUSABLE
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert sentence in line


def test_an_empty_database_and_a_secret_of_ones_own_are_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPAWN_STATE_DIR", str(folder))
    (folder / "spawn.db").touch()
    (folder / "secret").write_bytes(b"  correct horse battery staple, as they say\r\n")
    assert prepare.main() == 0
    assert StateFolder(folder).secret() == b"correct horse battery staple, as they say"


def test_a_secret_that_is_a_pipe_keeps_nobody_waiting(folder: Path) -> None:
    os.mkfifo(folder / "secret")
    with pytest.raises(errors.StorageUnavailable, match="no regular file"):
        StateFolder(folder).secret()


def test_a_note_of_the_image_that_is_none_counts_as_missing(folder: Path) -> None:
    (folder / "runtime-image").write_bytes(_NOISE)
    assert StateFolder(folder).image() == ""


def test_the_start_ends_with_the_sentence_alone_and_as_for_wrong_settings(folder: Path) -> None:
    (folder / "secret").touch()
    for _ in range(2):  # the log still has what the first start said
        outcome = spawnctl_up(folder)
        assert outcome.returncode == 2
        (line,) = (outcome.stdout + outcome.stderr).splitlines()
        assert str(folder / "secret") in line


@pytest.mark.parametrize("data", [_NOISE, b"SPAWN_WORKERS=2\nSPAWN_SLOTS=1\0\n"])
def test_an_odd_file_of_settings_is_named_with_its_line(folder: Path, data: bytes) -> None:
    (folder / "spawn.env").write_bytes(data)
    outcome = spawnctl_up(folder)
    assert outcome.returncode == 2
    assert f"of {folder}/spawn.env" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_state_folder_that_is_a_file_is_named(folder: Path) -> None:
    (folder / "state").touch()
    outcome = spawnctl_up(folder / "state")
    assert outcome.returncode == 2
    assert f"{folder}/state is no folder" in outcome.stderr


def test_settings_that_are_a_pipe_keep_nobody_waiting(folder: Path) -> None:
    os.mkfifo(folder / "spawn.env")
    for command in (["config"], ["up", "--detach"]):
        outcome = spawnctl(folder, *command)
        assert outcome.returncode == 2
        assert f"{folder}/spawn.env can't be read (it is no regular file)" in outcome.stderr


@pytest.mark.parametrize("make", [written(_NOISE), written(b"a" * 2 * 1024**2), os.mkfifo])
def test_an_operator_key_that_is_none_is_named(
    folder: Path, make: Callable[[Path], object]
) -> None:
    make(folder / "operator.key")
    outcome = spawnctl(folder, "keys", "list")
    assert outcome.returncode == 3
    assert f"{folder}/operator.key" in outcome.stderr
    assert "unexpected" not in outcome.stderr


@pytest.mark.parametrize("data", [b"garbage", b"\xff\xfe\x00", b"-1", b"9" * 30])
def test_a_lock_that_another_program_holds_is_named(folder: Path, data: bytes) -> None:
    path = folder / "supervisor.lock"
    path.write_bytes(data)
    with path.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (["down"], ["up", "--detach"]):
            outcome = spawnctl(folder, *command)
            assert outcome.returncode == 6
            assert f"{path} is locked, but not by SpawnAI" in outcome.stderr
    outcome = spawnctl(folder, "down")
    assert outcome.returncode == 0, "nobody holds it any more"


def test_a_lock_that_is_a_pipe_keeps_nobody_waiting(folder: Path) -> None:
    os.mkfifo(folder / "supervisor.lock")
    outcome = spawnctl(folder, "down")
    assert "it is no regular file" in outcome.stderr


def spawnctl_up(state_dir: Path) -> subprocess.CompletedProcess[str]:
    return spawnctl(state_dir, "up", "--detach")


def spawnctl(state_dir: Path, *command: str) -> subprocess.CompletedProcess[str]:
    http_port, control_port = free_ports(2)
    env = {name: text for name, text in os.environ.items() if not name.startswith("SPAWN_")}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.entrypoints.cli.main", *command],
        check=False,
        cwd=_ROOT,
        env={
            **env,
            "SPAWN_STATE_DIR": str(state_dir),
            "SPAWN_HTTP_PORT": str(http_port),
            "SPAWN_CONTROL_PORT": str(control_port),
        },
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
    )
