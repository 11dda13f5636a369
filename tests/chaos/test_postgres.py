"""PostgreSQL is broken: apps go on, sessions wait until it is back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from tests.chaos.conftest import ROLE, Scene
from tests.conftest import execute

Fault = Callable[[Scene], AbstractContextManager[None]]


@contextlib.contextmanager
def altered(scene: Scene, change: str, undo: str) -> Iterator[None]:
    """Change the role of the installation, for all of its connections: they are new ones."""
    execute(scene.database_url, f"ALTER ROLE {ROLE} {change}", _END_ALL)
    try:
        yield
    finally:
        execute(scene.database_url, f"ALTER ROLE {ROLE} {undo}", _END_ALL)


_END_ALL = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'"


def read_only(scene: Scene) -> AbstractContextManager[None]:
    """As a standby after a fail-over, or a disk that is full: every write is refused."""
    return altered(
        scene,
        "SET default_transaction_read_only = on",
        "RESET default_transaction_read_only",
    )


def too_many_connections(scene: Scene) -> AbstractContextManager[None]:
    return altered(scene, "CONNECTION LIMIT 0", "CONNECTION LIMIT -1")


def serializable(scene: Scene) -> AbstractContextManager[None]:
    """Transactions that ran side by side fail with serialization failures."""
    return altered(
        scene,
        "SET default_transaction_isolation = 'serializable'",
        "RESET default_transaction_isolation",
    )


@contextlib.contextmanager
def locked(scene: Scene) -> Iterator[None]:
    """Somebody else's transaction has locked the table of the sessions."""
    engine = sa.create_engine(make_url(scene.database_url), poolclass=NullPool)
    try:
        with engine.begin() as transaction:
            transaction.exec_driver_sql("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        engine.dispose()


def is_refused(scene: Scene) -> bool:
    """Whether a request for an app is answered 503, with when to come back."""
    response = scene.spawn.call("POST", "/api/sessions", {"template": "todo"}, key=scene.victim.key)
    assert response.status in {202, 503}, (response.status, response.text)
    return response.status == 503 and "retry-after" in response.headers


def has_a_waiting_backend(scene: Scene) -> bool:
    """Whether a statement of ours waits for a lock."""
    engine = sa.create_engine(make_url(scene.database_url), poolclass=NullPool)
    with engine.connect() as connection:
        count = connection.exec_driver_sql(
            f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{ROLE}'"
            " AND wait_event_type = 'Lock'"
        ).scalar_one()
    engine.dispose()
    return bool(count)


FAULTS: dict[str, tuple[Fault, Callable[[Scene], bool]]] = {
    "refuses": (lambda scene: scene.postgres.refusing(), lambda scene: scene.is_amiss("database")),
    "hangs": (lambda scene: scene.postgres.hanging(), lambda scene: scene.is_amiss("database")),
    "trickles": (lambda scene: scene.postgres.trickling(), lambda scene: scene.postgres.late > 100),
    "lies: a locked table": (locked, has_a_waiting_backend),
    "lies: read-only": (read_only, is_refused),
    "lies: too many connections": (too_many_connections, lambda scene: scene.is_amiss("database")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_apps_go_on_and_newcomers_wait_while_postgres(scene: Scene, fault: str) -> None:
    break_it, is_noticed = FAULTS[fault]
    scene.check_that_newcomers_wait(break_it(scene), lambda _: is_noticed(scene))


def test_nobody_notices_serialization_failures(scene: Scene) -> None:
    with serializable(scene):
        scene.neighbour.check_newcomer()
