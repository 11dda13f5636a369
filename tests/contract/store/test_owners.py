"""A database belongs to one installation and to no older release: anything else is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from orchestrator import config
from orchestrator.adapters.sql_store import upgrade
from orchestrator.adapters.sql_store.database import engine_for, parse
from orchestrator.domain import errors
from orchestrator.entrypoints.cli.checks.database import check_database
from orchestrator.entrypoints.cli.findings import Level
from orchestrator.entrypoints.liveness import exits

OURS, OTHERS = "a" * 10, "b" * 10
_ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def connect(url: str) -> Iterator[sa.Connection]:
    engine = engine_for(parse(url), pool_size=0)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def dump(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    with connect(url) as connection:
        tables = sorted(sa.inspect(connection).get_table_names())
        return {
            name: [tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {name}")]
            for name in tables
        }


def make_newer(url: str) -> None:
    with connect(url) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")


def test_the_first_installation_owns_the_database_and_a_second_changes_nothing(
    empty_url: str,
) -> None:
    upgrade.migrate(empty_url, OURS)
    before = dump(empty_url)
    with pytest.raises(errors.Conflict, match=f"belongs to the installation {OURS}") as caught:
        upgrade.migrate(empty_url, OTHERS)
    assert caught.value.code == "database_taken"
    assert "SPAWN_DATABASE_URL" in str(caught.value)
    assert dump(empty_url) == before
    upgrade.migrate(empty_url, OURS)
    assert dump(empty_url) == before


def test_a_database_of_before_this_rule_belongs_to_the_next_that_starts(store_url: str) -> None:
    upgrade.migrate(store_url, OURS)
    with pytest.raises(errors.Conflict):
        upgrade.inspect(store_url, OTHERS)


def test_a_database_of_a_newer_release_is_refused_in_one_sentence(store_url: str) -> None:
    make_newer(store_url)
    before = dump(store_url)
    for refuse in (upgrade.migrate, upgrade.inspect):
        with pytest.raises(errors.Conflict, match="newer release") as caught:
            refuse(store_url, OURS)
        assert caught.value.code == "database_newer"
    assert dump(store_url) == before


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """Not in pytest's temporary folder: the proxy's workers couldn't read it there."""
    folder = Path(tempfile.mkdtemp(prefix="spawn-owner-"))
    folder.chmod(0o711)
    yield folder / "state"
    shutil.rmtree(folder, ignore_errors=True)


def test_up_says_so_without_a_traceback(store_url: str, state_dir: Path) -> None:
    make_newer(store_url)
    result = subprocess.run(
        [sys.executable, "-m", "orchestrator.entrypoints.prepare"],
        cwd=_ROOT,
        env={"SPAWN_STATE_DIR": str(state_dir), "SPAWN_DATABASE_URL": store_url, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    (line,) = result.stderr.splitlines()
    assert result.returncode == exits.UNUSABLE
    assert line.startswith("this database is of a newer release")
    assert line.endswith("(database_newer)")


def test_doctor_says_what_up_would_refuse(store_url: str, tmp_path: Path) -> None:
    (tmp_path / "instance").write_text(OTHERS)
    settings = config.make(state_dir=tmp_path, database_url=store_url)
    assert check_database(settings).level is Level.OK
    upgrade.migrate(store_url, OURS)
    assert check_database(settings).code == "database_taken"
    make_newer(store_url)
    assert check_database(settings).code == "database_newer"


def test_doctor_makes_no_database(tmp_path: Path) -> None:
    settings = config.make(state_dir=tmp_path)
    assert check_database(settings).level is Level.OK
    assert list(tmp_path.iterdir()) == []
