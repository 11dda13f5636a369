"""What the database reads for what is asked often: by its own plans, never a large table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import NullPool

from orchestrator.adapters.sql_store import SqlStore, codec, schema
from orchestrator.domain import ids
from orchestrator.domain.pool.host import Host, Wish
from orchestrator.domain.sessions.session import SessionState
from tests.contract.store.steps import add_session, provisioning, warm_up
from tests.fakes import samples
from tests.fakes.samples import NOW, USER, later

ENDED_ROWS = 1500
FULL_HOSTS = 800
LABELS = {"gpu": "yes"}


@pytest.fixture
def crowded(store: SqlStore, store_url: str) -> SqlStore:
    """A store with thousands of ended sessions and sandboxes that are gone, hundreds of full hosts,
    and a few of each that live or have room."""
    for _ in range(3):
        store.hosts.put(samples.host(slots=6, region="eu", labels=LABELS))
    host = store.hosts.list()[0]
    ended = [
        samples.session(
            state=SessionState.DESTROYED, created_at=later(-9000 + number), prompt="please " * 200
        )
        for number in range(ENDED_ROWS)
    ]
    gone = [samples.sandbox(host_id=host.id, state="gone", routed=False) for _ in range(ENDED_ROWS)]
    full = [samples.host(slots=1, labels={"gpu": "no"}) for _ in range(FULL_HOSTS)]
    with store._database.write() as connection:
        connection.execute(sa.insert(schema.hosts), [_full(one) for one in full])
        connection.execute(
            sa.insert(schema.host_labels),
            [{"host_id": one.id, "key": "gpu", "value": "no"} for one in full],
        )
        connection.execute(sa.insert(schema.sessions), [codec.session_values(s) for s in ended])
        connection.execute(
            sa.insert(schema.sandboxes),
            [{column.name: getattr(s, column.name) for column in codec.SANDBOX} for s in gone],
        )
    for _ in range(20):
        add_session(store)
    for _ in range(4):
        warm_up(store)
    _count_again(store_url)
    return store


def _full(host: Host) -> dict[str, Any]:
    return {**codec.host_values(replace(host, reason="x" * 200)), "used": host.slots}


def _count_again(url: str) -> None:
    """Bring the statistics up to date that the plans are made from."""
    statistics = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with statistics.connect() as connection:
        connection.exec_driver_sql(
            "ANALYZE"
            if "sqlite" in url
            else "VACUUM ANALYZE sessions, sandboxes, hosts, host_labels"
        )
    statistics.dispose()


def scans(store: SqlStore, ask: Callable[[], object]) -> list[str]:
    """Tables that `ask` reads from end to end, as the database's own plans say."""
    asked: list[tuple[str, Any]] = []

    def note(*call: Any) -> None:
        if call[2].startswith(("SELECT", "UPDATE", "DELETE")):
            asked.append((call[2], call[3]))

    target = store._database._engine
    event.listen(target, "before_cursor_execute", note)
    try:
        ask()
    finally:
        event.remove(target, "before_cursor_execute", note)
    assert asked, "this asked the database nothing"
    return [table for statement, values in asked for table in scanned(store, statement, values)]


def scanned(store: SqlStore, statement: str, values: Any) -> Iterator[str]:
    with store._database.read() as connection:
        if connection.dialect.name == "sqlite":
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values):
                words = row[-1].split()
                # What is read through an index alone, or through a partial one, isn't the table.
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


ENDED = {"sessions", "sandboxes"}
QUESTIONS: dict[str, Callable[[SqlStore], object]] = {
    "due": lambda store: store.sessions.due(NOW, 50),
    "expire": lambda store: store.sessions.expire(later(10**6), 50),
    "ahead_of": lambda store: store.sessions.ahead_of(samples.session(), NOW),
    "waiting": lambda store: store.sessions.waiting(NOW),
    "counts": lambda store: store.sessions.counts(),
    "add": lambda store: store.sessions.add(samples.session(), None, max_active=10**6),
    "list": lambda store: store.sessions.list(user_id=USER),
    "list all": lambda store: store.sessions.list(),
    "prune": lambda store: store.sessions.prune(later(-8999)),
    "loads": lambda store: store.hosts.loads(),
    "routes": lambda store: store.sandboxes.routes(),
    "unsettled": lambda store: store.sandboxes.unsettled_routes(),
    "mark_routes": lambda store: store.sandboxes.mark_routes(
        {ids.new_sandbox_id(): ids.new_slug()}, [], NOW
    ),
    "sandboxes": lambda store: store.sandboxes.list(),
}


WISH = Wish(region="eu", labels=LABELS)
# The claim path, and what the loops ask twice a second: none of it may grow with the pool.
OF_LARGE_POOLS: dict[str, Callable[[SqlStore], object]] = {
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
    "room": lambda store: store.hosts.room(9),
    "warm counts": lambda store: store.sandboxes.warm_counts(),
    "warming": lambda store: store.sandboxes.warming(),
    "loose": lambda store: store.sandboxes.loose(),
}


def test_what_has_ended_is_never_read_through(crowded: SqlStore) -> None:
    assert read_through(crowded, QUESTIONS, ENDED) == {}
    assert scans(crowded, lambda: _read_all(crowded)) == ["sessions"], "a scan is noticed"


def test_what_claims_and_refills_read_does_not_grow_with_the_pool(crowded: SqlStore) -> None:
    large = {*ENDED, "hosts", "host_labels"}
    assert read_through(crowded, OF_LARGE_POOLS, large) == {}


def read_through(
    store: SqlStore, questions: dict[str, Callable[[SqlStore], object]], tables: set[str]
) -> dict[str, list[str]]:
    """Of these tables, those that a question reads from end to end, by the question's name."""
    found = {
        name: sorted(tables.intersection(scans(store, lambda ask=ask: ask(store))))
        for name, ask in questions.items()
    }
    return {name: read for name, read in found.items() if read}


def _read_all(store: SqlStore) -> None:
    with store._database.read() as connection:
        connection.execute(sa.select(schema.sessions.c.prompt)).all()
