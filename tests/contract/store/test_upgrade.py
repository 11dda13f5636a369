"""A database of release 0.1 is upgraded with all its rows, and can be downgraded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from orchestrator.adapters import sql_store
from orchestrator.adapters.sql_store import codec, upgrade
from orchestrator.adapters.sql_store.database import engine_for, parse
from orchestrator.domain import ids
from orchestrator.domain.pool.host import Drain, HostState, Wish
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.change_turns import Turns
from tests.fakes import samples
from tests.fakes.samples import NOW, later

CREATED = later(-3600)
HOSTS = {
    name: {
        "id": ids.new_host_id(),
        "name": name,
        "docker_url": "unix:///var/run/docker.sock",
        "publish_address": f"10.0.0.{number}",
        "agent_folder": "/run/spawn/agent",
        "state": "up",
        "cordoned": name == "cordoned",
        "draining": name == "draining",
        "slots": 4,
        "reason": "",
        "seen_at": NOW,
        "created_at": CREATED,
        "port_cursor": 21002,
    }
    for number, name in enumerate(("busy", "cordoned", "draining"), start=1)
}
SESSION = samples.session(prompt="a kanban board", slug=ids.new_slug())
STATES = ("creating", "warm", "claimed", "stopping", "broken", "gone", "gone")


def sandbox_row(number: int, state: str) -> dict[str, Any]:
    return {
        "id": ids.new_sandbox_id(),
        "host_id": HOSTS["draining" if number == 1 else "busy"]["id"],
        "session_id": SESSION.id if state == "claimed" else None,
        "state": state,
        "slug": SESSION.slug if state == "claimed" else ids.new_slug(),
        "port": 21000 + number,
        "image": samples.IMAGE,
        "container_id": "c" * 64,
        "agent_seen_at": NOW,
        "routed": state in {"warm", "claimed"},
        "reason": "",
        "created_at": later(number),
        "state_since": NOW,
    }


SANDBOXES = [sandbox_row(number, state) for number, state in enumerate(STATES)]


@contextmanager
def connect(url: str) -> Iterator[sa.Connection]:
    engine = engine_for(parse(url), pool_size=0)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def alembic(url: str, run: Callable[[Config], None]) -> None:
    """Run an Alembic command as upgrade.migrate does, in one transaction."""
    config = Config()
    config.set_main_option("script_location", str(upgrade._FOLDER))
    with connect(url) as connection:
        connection.exec_driver_sql("BEGIN")
        config.attributes["connection"] = connection
        run(config)
        connection.exec_driver_sql("COMMIT")


def rows(url: str, table: str) -> list[dict[str, Any]]:
    """All rows of a table, with its current columns."""
    with connect(url) as connection:
        current = sa.Table(table, sa.MetaData(), autoload_with=connection)
        result = connection.execute(sa.select(current).order_by(current.c.id))
        return [dict(row) for row in result.mappings()]


def session_row() -> dict[str, Any]:
    values = codec.session_values(SESSION)
    later_columns = {"wish", "refused_by", "move", "turns", "reused"}
    return {name: values[name] for name in values if name not in later_columns}


@pytest.fixture
def old_url(tmp_path: Path, empty_url: str) -> str:
    """The URL of a database as release 0.1 left it."""
    (tmp_path / "folder").mkdir()
    alembic(empty_url, lambda config: command.upgrade(config, "0001"))
    tables = {"hosts": list(HOSTS.values()), "sessions": [session_row()], "sandboxes": SANDBOXES}
    with connect(empty_url) as connection:
        connection.exec_driver_sql("BEGIN")
        for name, values in tables.items():
            table = sa.Table(name, sa.MetaData(), autoload_with=connection)
            naive = connection.dialect.name == "sqlite"
            connection.execute(sa.insert(table), [_stored(row, naive) for row in values])
        connection.exec_driver_sql("COMMIT")
    return empty_url


def _stored(row: dict[str, Any], naive: bool) -> dict[str, Any]:
    """The row with its times as the database stores them."""
    return {
        name: value.replace(tzinfo=None) if naive and isinstance(value, datetime) else value
        for name, value in row.items()
    }


def transition(sandbox: Sandbox, to: SandboxState) -> Sandbox:
    return sandbox.transition(to, NOW, "a test said so")


def test_an_upgrade_keeps_every_row_and_counts_used_slots(old_url: str) -> None:
    before = {table: rows(old_url, table) for table in ("hosts", "sessions", "sandboxes")}
    upgrade.migrate(old_url)

    for table, old_rows in before.items():
        new_rows = rows(old_url, table)
        assert len(new_rows) == len(old_rows)
        for old, new in zip(old_rows, new_rows, strict=True):
            kept = {name: value for name, value in old.items() if name != "draining"}
            assert {name: new[name] for name in kept} == kept
    used = {row["name"]: row["used"] for row in rows(old_url, "hosts")}
    assert used == {"busy": 4, "cordoned": 0, "draining": 1}


def test_an_upgraded_database_works(old_url: str) -> None:
    upgrade.migrate(old_url)
    store = sql_store.open_store(old_url, port_range=(21000, 21009))
    try:
        hosts = {host.name: host for host in store.hosts.list()}
        assert {name: host.drain for name, host in hosts.items()} == {
            "busy": Drain.NONE,
            "cordoned": Drain.NONE,
            "draining": Drain.WAIT,
        }
        for name, host in hosts.items():
            assert (host.state, host.cordoned) == (HostState.UP, name == "cordoned")
            assert (host.state_since, host.generation, host.labels) == (CREATED, 1, {})
        session = store.sessions.get(SESSION.id)
        assert (session.wish, session.refused_by, session.move) == (Wish(), (), None)
        assert (session.turns, session.reused) == (Turns(), False)
        assert len(store.sandboxes.routes().routes) == 3, "the same apps are still served"

        (broken,) = store.sandboxes.list(states=[SandboxState.BROKEN])
        assert store.hosts.free_slots(9) == 0, "its only open host is full"
        stopping = store.sandboxes.save(
            transition(broken, SandboxState.STOPPING), SandboxState.BROKEN
        )
        store.sandboxes.save(transition(stopping, SandboxState.GONE), SandboxState.STOPPING)
        assert store.hosts.free_slots(9) == 1
    finally:
        store.close()


def test_a_downgrade_restores_every_row(old_url: str) -> None:
    before = {table: rows(old_url, table) for table in ("hosts", "sessions", "sandboxes")}
    upgrade.migrate(old_url)
    alembic(old_url, lambda config: command.downgrade(config, "0001"))
    assert {table: rows(old_url, table) for table in before} == before
    upgrade.migrate(old_url)
    assert [row["used"] for row in rows(old_url, "hosts") if row["name"] == "busy"] == [4]


def test_of_hosts_with_one_publish_address_the_oldest_keeps_it_and_the_others_leave(
    old_url: str,
) -> None:
    with connect(old_url) as connection:
        connection.exec_driver_sql("UPDATE hosts SET publish_address = '10.0.0.9'")
        connection.exec_driver_sql(
            "UPDATE hosts SET created_at = '2020-01-01 00:00:00.000000' WHERE name = 'cordoned'"
        )
    upgrade.migrate(old_url)
    store = sql_store.open_store(old_url)
    try:
        hosts = {host.name: host for host in store.hosts.list()}
        assert hosts["cordoned"].drain is Drain.NONE
        for name in ("busy", "draining"):
            assert hosts[name].drain is Drain.LEAVE
            assert "add it again" in hosts[name].reason
    finally:
        store.close()
