"""Frequent calls never scan a large table, as the query plans of the databases show."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import NullPool

from orchestrator.adapters.sql_store import SqlStore, admission, codec, schema, sessions
from orchestrator.adapters.sql_store.prepared import Lookup
from orchestrator.domain import ids
from orchestrator.domain.pool.host import Host, Wish
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.session import SessionState
from orchestrator.ports import SessionPosition
from tests.contract.store.steps import add_session, provisioning, warm_up
from tests.fakes import samples
from tests.fakes.samples import NOW, USER, later

ENDED_ROWS = 1500
FULL_HOSTS = 800
LABELS = {"gpu": "yes"}


@pytest.fixture
def crowded(store: SqlStore, store_url: str) -> SqlStore:
    """A store with thousands of ended sessions and GONE sandboxes, and hundreds of full hosts. A
    few sessions and sandboxes are live, and a few hosts have room."""
    for _ in range(3):
        store.hosts.put(samples.host(slots=6, region="eu", labels=LABELS))
    home = store.hosts.list()[0]
    ended = [
        samples.session(
            state=SessionState.DESTROYED, created_at=later(-9000 + number), prompt="please " * 200
        )
        for number in range(ENDED_ROWS)
    ]
    gone = [samples.sandbox(host_id=home.id, state="gone", routed=False) for _ in range(ENDED_ROWS)]
    full = [samples.host(slots=1, labels={"gpu": "no"}) for _ in range(FULL_HOSTS)]
    with store._database.write() as connection:
        connection.execute(sa.insert(schema.hosts), [_full_row(host) for host in full])
        connection.execute(
            sa.insert(schema.host_labels),
            [{"host_id": host.id, "key": "gpu", "value": "no"} for host in full],
        )
        connection.execute(
            sa.insert(schema.sessions), [codec.session_values(session) for session in ended]
        )
        connection.execute(
            sa.insert(schema.sandboxes),
            [
                {column.name: getattr(sandbox, column.name) for column in codec.SANDBOX}
                for sandbox in gone
            ],
        )
    for _ in range(20):
        add_session(store)
    add_session(store, wish=WISH, created_at=later(-1))
    for _ in range(4):
        warm_up(store)
    _update_statistics(store_url)
    return store


def _full_row(host: Host) -> dict[str, Any]:
    return {**codec.host_values(replace(host, reason="x" * 200)), "used": host.slots}


def _update_statistics(url: str) -> None:
    """Update the statistics that the planners use."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "ANALYZE"
            if "sqlite" in url
            else "VACUUM ANALYZE sessions, sandboxes, hosts, host_labels"
        )
    engine.dispose()


def find_scans(store: SqlStore, call: Callable[[], object]) -> list[str]:
    """The tables that `call` scans, according to the plans of its statements."""
    statements: list[tuple[str, Any]] = []

    def record(*arguments: Any) -> None:
        if arguments[2].startswith(("SELECT", "UPDATE", "DELETE")):
            statements.append((arguments[2], arguments[3]))

    engine = store._database._engine
    event.listen(engine, "before_cursor_execute", record)
    try:
        call()
    finally:
        event.remove(engine, "before_cursor_execute", record)
    assert statements, "this call sent no statement"
    return [
        table for statement, values in statements for table in scanned(store, statement, values)
    ]


def scanned(store: SqlStore, statement: str, values: Any) -> Iterator[str]:
    with store._database.read() as connection:
        if connection.dialect.name == "sqlite":
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values):
                words = row[-1].split()
                # A scan of an index doesn't scan the table.
                if words[0] == "SCAN" and "INDEX" not in words:
                    yield words[1]
        else:
            explain = f"EXPLAIN (FORMAT JSON) {statement}"
            plan = connection.exec_driver_sql(explain, values).scalar_one()
            yield from seq_scans(plan if isinstance(plan, list) else json.loads(plan))


def seq_scans(plan: Any) -> Iterator[str]:
    if isinstance(plan, list):
        for part in plan:
            yield from seq_scans(part)
    elif isinstance(plan, dict):
        if plan.get("Node Type") == "Seq Scan":
            yield plan["Relation Name"]
        for part in plan.values():
            yield from seq_scans(part)


def _add_change(store: SqlStore) -> None:
    session = add_session(store)
    change = Change(session_id=session.id, number=1, text="blue", restores=None, created_at=NOW)
    store.changes.add(change, session, None, max_per_minute=30)


POSITION = SessionPosition(ended=False, created_at=NOW, session_id=ids.new_session_id())
TABLES_WITH_ENDED_ROWS = {"sessions", "sandboxes"}
CALLS: dict[str, Callable[[SqlStore], object]] = {
    "due": lambda store: store.sessions.due(NOW, 50),
    "expire": lambda store: store.sessions.expire(later(10**6), 50),
    "demand ahead": lambda store: store.sessions.demand_ahead_of(
        samples.session(created_at=later(1)), NOW
    ),
    "demand": lambda store: store.sessions.demand(NOW),
    "queue": lambda store: store.sessions.queue(NOW, 50),
    "many": lambda store: store.sessions.get_many([ids.new_session_id()]),
    "counts": lambda store: store.sessions.counts(),
    "newest": lambda store: store.sessions.newest_in([SessionState.DEPLOYING]),
    "add a change": _add_change,
    "list": lambda store: store.sessions.list(user_id=USER),
    "list all": lambda store: store.sessions.list(),
    "next page": lambda store: store.sessions.list(after=POSITION, limit=10),
    "prune": lambda store: store.sessions.prune(later(-8999)),
    "kinds": lambda store: store.hosts.kinds(),
    "loads": lambda store: store.hosts.loads(),
    "routes": lambda store: store.sandboxes.routes(),
    "unsettled": lambda store: store.sandboxes.has_unpublished_routes(),
    "mark_routes": lambda store: store.sandboxes.mark_routes(
        samples.routes_of(samples.sandbox()), [], NOW
    ),
    "sandboxes": lambda store: store.sandboxes.list(),
    "agents": lambda store: store.sandboxes.agent_groups(NOW),
    "published ports": lambda store: store.sandboxes.published_ports(),
    "living": lambda store: store.pool.living(),
    "living on hosts": lambda store: store.pool.living([ids.new_host_id()]),
    "late agents": lambda store: store.pool.late_agents(NOW),
    "assigned": lambda store: store.pool.assigned(),
}


WISH = Wish(region="eu", labels=LABELS)
# The calls of claims, and those that the loops make twice a second: their cost must not grow with
# the pool.
CALLS_IN_LARGE_POOLS: dict[str, Callable[[SqlStore], object]] = {
    "claim": lambda store: store.sandboxes.claim(provisioning(add_session(store)), NOW),
    "claim by wish": lambda store: store.sandboxes.claim(
        provisioning(add_session(store, wish=WISH)), NOW
    ),
    "claim successor": lambda store: store.sandboxes.claim_successor(
        add_session(store, refused_by=(ids.new_host_id(),)), NOW
    ),
    "place": lambda store: store.sandboxes.place(samples.new_sandbox(), NOW),
    "place by wish": lambda store: store.sandboxes.place(samples.new_sandbox(wish=WISH), NOW),
    "place elsewhere": lambda store: store.sandboxes.place(
        samples.new_sandbox(avoid=(ids.new_host_id(),)), NOW
    ),
    "room": lambda store: store.hosts.free_slots(9),
    "warm counts": lambda store: store.sandboxes.warm_counts(),
    "warming": lambda store: store.sandboxes.count_warming(NOW),
    "cold": lambda store: store.sandboxes.count_cold(),
    "loose": lambda store: store.sandboxes.broken_or_stopping(),
    "unstarted": lambda store: store.sandboxes.unstarted(),
    "cpu holders": lambda store: store.sandboxes.cpu_holders(),
}


def test_ended_sessions_and_gone_sandboxes_are_never_scanned(crowded: SqlStore) -> None:
    assert scans_by_call(crowded, CALLS, TABLES_WITH_ENDED_ROWS) == {}
    assert find_scans(crowded, lambda: _read_all(crowded)) == ["sessions"], "finds a real scan"


def test_claims_and_refills_scan_no_table_that_grows_with_the_pool(crowded: SqlStore) -> None:
    large = {*TABLES_WITH_ENDED_ROWS, "hosts", "host_labels"}
    assert scans_by_call(crowded, CALLS_IN_LARGE_POOLS, large) == {}


def scans_by_call(
    store: SqlStore, calls: dict[str, Callable[[SqlStore], object]], tables: set[str]
) -> dict[str, list[str]]:
    """Which of these tables each call scans. Calls without a scan are left out."""
    scans = {
        name: sorted(tables.intersection(find_scans(store, lambda call=call: call(store))))
        for name, call in calls.items()
    }
    return {name: scanned_tables for name, scanned_tables in scans.items() if scanned_tables}


LOOKUPS: dict[str, tuple[Lookup, Mapping[str, object]]] = {
    "place in the queue": (admission.AHEAD, admission.position_of(samples.session(), NOW)),
    "active sessions": (admission._COUNT_ACTIVE, {"user_id": USER}),
    "last starts": (admission._STARTED_AT, {"user_id": USER, "younger": 29}),
    "last event": (sessions._LAST_EVENT, {"session_id": ids.new_session_id()}),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_lookups_that_count_scan_no_table(crowded: SqlStore, name: str) -> None:
    lookup, values = LOOKUPS[name]
    compiled = lookup.compiled(crowded._database._engine.dialect)
    scans = set(scanned(crowded, compiled.text, compiled.arguments(values)))
    assert not scans & {"sessions", "events"}


def _read_all(store: SqlStore) -> None:
    with store._database.read() as connection:
        connection.execute(sa.select(schema.sessions.c.prompt)).all()
