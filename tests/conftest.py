"""Fixtures for all suites: real databases and a real fleet. Also installs tests/workers.py.

PostgreSQL starts once per run, when a test first needs it, in a temporary folder and on a free
port. Each test gets its own database: a copy of one that was migrated once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from orchestrator.adapters.sql_store import upgrade
from tests import fleet as machines
from tests import workers
from tests.fleet import Fleet

_SERVER_USER = "postgres"  # the server refuses to run as root
_DEADLINE_S = 120
_numbers = itertools.count(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> workers.Scheduler | None:
    """See tests/workers.py."""
    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # else the group with the most tests comes first
    return workers.Scheduler(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: workers.rank_of(item.nodeid))


@pytest.hookimpl(tryfirst=True)  # before its fixtures, the fleet among them
def pytest_runtest_setup(item: pytest.Item) -> None:
    workers.check_name(item)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of an empty database on our own server, where tests can create others."""
    with _postgres() as url:
        yield url


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> str:
    """Name of a migrated database to copy. Nothing may be connected to it."""
    execute(postgres_url, "CREATE DATABASE migrated TEMPLATE template0")
    upgrade.migrate(_with_database(postgres_url, "migrated"))
    return "migrated"


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file to copy."""
    path = tmp_path_factory.mktemp("migrated") / "store.db"
    upgrade.migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of this test's own migrated, empty database, on SQLite and PostgreSQL in turn."""
    if request.param == "sqlite":
        path = tmp_path / "store.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        yield f"sqlite:///{path}"
        return
    server_url = request.getfixturevalue("postgres_url")
    with fresh_database(server_url, request.getfixturevalue("migrated_postgres")) as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres_url: str) -> Iterator[str]:
    """URL of a database on PostgreSQL that is not migrated yet."""
    with fresh_database(postgres_url, "template0") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database that is not migrated yet, on SQLite and PostgreSQL in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'folder' / 'empty.db'}"
        return
    with fresh_database(request.getfixturevalue("postgres_url"), "template0") as url:
        yield url


@contextlib.contextmanager
def fresh_database(server_url: str, template: str) -> Iterator[str]:
    """URL of a copy of the database `template`, which is dropped at the end."""
    name = f"test_{next(_numbers)}"
    execute(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield _with_database(server_url, name)
    finally:
        execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def execute(url: str, *statements: str) -> None:
    """Run statements, each outside any transaction."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    finally:
        engine.dispose()


def _with_database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


@contextlib.contextmanager
def _postgres() -> Iterator[str]:
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="spawn-pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _SERVER_USER, pwd.getpwnam(_SERVER_USER).pw_gid)
        data = folder / "data"
        _run([programs / "initdb", "-D", data, "-U", "spawn", "-A", "trust", "-E", "UTF8", "-N"])
        port = _free_port()
        options = (
            f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
            " -c fsync=off -c full_page_writes=off -c autovacuum=off"
        )
        pg_ctl = [programs / "pg_ctl", "-D", data, "-w", "-t", str(_DEADLINE_S // 2)]
        _run([*pg_ctl, "-l", folder / "log", "-o", options, "start"])
        try:
            yield f"postgresql+psycopg://spawn@/postgres?host={folder}&port={port}"
        finally:
            _run([*pg_ctl, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    """The folder of initdb and pg_ctl: Debian's newest one, or the one on the PATH."""
    programs = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3])
    )
    on_path = shutil.which("initdb")
    assert programs or on_path, "these tests need PostgreSQL: apt install postgresql"
    return (programs[-1] if programs else Path(str(on_path)).resolve()).parent


def _run(argv: Sequence[str | Path]) -> None:
    words = [str(word) for word in argv]
    if os.geteuid() == 0:
        words = ["runuser", "-u", _SERVER_USER, "--", *words]
    # Into a file, not a pipe: the server that pg_ctl starts would hold the pipe open for ever.
    with tempfile.TemporaryFile() as output:
        result = subprocess.run(
            words, stdout=output, stderr=output, cwd="/", timeout=_DEADLINE_S, check=False
        )
        output.seek(0)
        assert result.returncode == 0, f"{words} failed: {output.read().decode(errors='replace')}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def fleet(
    docker_services: object,
    docker_compose_project_name: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Fleet:
    """Three machines, started once per run. A test mends what it breaks: all tests share them."""
    return machines.await_machines(docker_compose_project_name, tmp_path_factory.mktemp("fleet"))


# The fixtures that pytest-docker's `docker_services` needs.


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    return f"spawn-test-{os.getpid()}"


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(machines.COMPOSE_FILE)


@pytest.fixture(scope="session")
def docker_compose_command(docker_compose_project_name: str) -> str:
    settings = machines.environment(docker_compose_project_name)
    return shlex.join(["env", *settings, str(machines.COMPOSE), "--progress", "quiet"])


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    return ["up --detach --no-build"]


@pytest.fixture(scope="session")
def docker_cleanup(docker_compose_project_name: str) -> Iterator[list[str]]:
    """No commands: pytest-docker runs none after an `up` that failed half-way, so we clean up."""
    yield []
    machines.remove(docker_compose_project_name)
