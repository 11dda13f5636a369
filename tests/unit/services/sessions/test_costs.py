"""What a session costs the database, step by step: nobody adds to it without noticing.

A lookup is a read of one row, mostly by its key. A write is a transaction, of which SQLite runs one
at a time.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import event

from orchestrator.adapters.sql_store import SqlStore
from orchestrator.adapters.sql_store.database import Database
from orchestrator.domain.sessions.session import Phase, Session, SessionState
from orchestrator.services.agents import inbox
from orchestrator.services.pool import refill
from orchestrator.services.sessions import due, requests
from tests.unit.services.world import OPERATOR, World


@dataclass
class Cost:
    """What was asked of the database."""

    statements: int = 0
    writes: int = 0


@pytest.fixture
def costs(world: World) -> Iterator[Cost]:
    """Counts from the start of the test; a test sets it back."""
    assert isinstance(world.store, SqlStore)
    database: Database = world.store.sessions._database
    cost = Cost()

    def count_query(_c: object, _k: object, statement: str, *_: object) -> None:
        cost.statements += statement.startswith("SELECT")

    def count_other(statement: str) -> None:
        cost.statements += not statement.startswith("SELECT")
        cost.writes += statement.startswith("BEGIN")

    def trace(connection: sqlite3.Connection, *_: object) -> None:
        connection.set_trace_callback(count_other)  # also what is written on the driver directly

    event.listen(database._engine, "before_cursor_execute", count_query)
    event.listen(database._engine, "checkout", trace)
    yield cost
    event.remove(database._engine, "before_cursor_execute", count_query)
    event.remove(database._engine, "checkout", trace)


@contextlib.contextmanager
def at_most(cost: Cost, statements: int, writes: int) -> Iterator[None]:
    """The block costs no more than that. Lookups aren't counted among the statements."""
    cost.statements = cost.writes = 0
    yield
    assert (cost.statements, cost.writes) <= (statements, writes), cost
    assert cost.writes <= writes, cost


def test_a_cold_session_costs_no_more_than_this(world: World, costs: Cost) -> None:
    world.add_host()
    with at_most(costs, statements=4, writes=1):
        session = world.create_session(OPERATOR)
    with at_most(costs, statements=13, writes=1):  # no warm sandbox, then a placement
        world.converge(session)
    with at_most(costs, statements=4, writes=1):
        world.start_placed()
    with at_most(costs, statements=6, writes=1):
        world.publish()
    assert world.queue.nudged == [session.id], "a route alone is no news for a session that starts"
    with at_most(costs, statements=6, writes=2):
        inbox.visit(world.deps, world.sandbox_of(session).id, "")
    with at_most(costs, statements=3, writes=1):
        world.report(session, Phase.READY)
    with at_most(costs, statements=8, writes=2):  # the finding of the walk, and READY
        world.converge(session)
    assert world.state(session) is SessionState.READY


def test_a_warm_session_costs_no_more_than_this(world: World, costs: Cost) -> None:
    world.add_host()
    world.add_warm_sandbox()
    session = world.create_session(OPERATOR)
    with at_most(costs, statements=8, writes=1):
        world.converge(session)
    assert world.state(session) is SessionState.PROVISIONING
    with at_most(costs, statements=0, writes=0):
        world.converge(session)


def test_an_end_costs_no_more_than_this(world: World, costs: Cost) -> None:
    world.add_host()
    ready = world.run_session(world.create_session(OPERATOR))
    with at_most(costs, statements=3, writes=1):
        requests.end(world.deps, OPERATOR, ready.id)
    with at_most(costs, statements=5, writes=1):  # session and sandbox together
        world.converge(ready)
    with at_most(costs, statements=6, writes=1):
        world.publish()
    with at_most(costs, statements=5, writes=1):
        world.clear()
    with at_most(costs, statements=5, writes=1):
        world.converge(ready)
    assert world.state(ready) is SessionState.DESTROYED


def test_a_pass_that_has_nothing_to_do_costs_a_few_reads(world: World, costs: Cost) -> None:
    world.add_host()
    world.policy = replace(world.policy, warm_target=0)
    world.run_session(world.create_session(OPERATOR))
    with at_most(costs, statements=2, writes=0):
        due.nudge_due_sessions(world.deps)
    with at_most(costs, statements=1, writes=0):
        assert refill.is_full(world.deps)
    with at_most(costs, statements=4, writes=0):
        level = refill.measure_level(world.deps)
        refill.retire_surplus(world.deps, level)
        refill.start_missing(world.deps, lambda _: None, level)
    with at_most(costs, statements=1, writes=0):
        world.clear()


def test_sessions_without_room_cost_nothing_until_there_is_some(world: World, costs: Cost) -> None:
    waiting: list[Session] = [world.create_session(OPERATOR) for _ in range(30)]
    for session in waiting:
        world.converge(session)
    world.queue.nudges.clear()
    with at_most(costs, statements=5, writes=0):
        assert due.nudge_due_sessions(world.deps).nudged == 0
    assert world.queue.nudged == []
