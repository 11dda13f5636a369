"""Looks that crash: the session is left alone for a while, and nobody else is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.sessions.session import SessionState
from orchestrator.services.sessions import due, looks, requests
from tests.unit.services.world import VISITOR, World


def test_a_session_whose_look_crashes_is_left_alone_ever_longer(world: World) -> None:
    ending = world.create_session()
    world.policy = replace(world.policy, bundle_retention_s=10**12)  # no date is that far away
    requests.end(world.deps, VISITOR, ending.id)
    pauses = []
    for _ in range(9):
        with pytest.raises(OverflowError):
            looks.look(world.deps, ending.id)
        due_at = world.session(ending).due_at
        pauses.append((due_at - world.clock.now()).total_seconds())
        assert due.nudge_due_sessions(world.deps).nudged == 0
        world.clock.advance(pauses[-1])
        assert due.nudge_due_sessions(world.deps).nudged == 1
    assert pauses == [1, 1, 2, 4, 8, 16, 32, 60, 60]

    world.policy = replace(world.policy, bundle_retention_s=60)
    looks.look(world.deps, ending.id)
    assert world.state(ending) is SessionState.DESTROYED


def test_a_queued_session_whose_look_crashes_lets_those_behind_it_pass(world: World) -> None:
    broken, behind = world.create_session(), world.create_session()
    world.add_host(slots=2)
    deps = replace(world.deps, policy=None)  # type: ignore[arg-type]  # what a bug may do
    with pytest.raises(AttributeError):
        looks.look(deps, broken.id)
    looks.look(world.deps, behind.id)
    assert world.state(behind) is SessionState.PROVISIONING
    world.clock.advance(1)
    looks.look(world.deps, broken.id)
    assert world.state(broken) is SessionState.PROVISIONING


def test_a_database_that_is_away_makes_no_session_pause(world: World) -> None:
    session = world.create_session()
    world.add_host()
    world.converge(session)
    before = world.session(session)
    working = world.store
    world.store = StoreWithoutHostsForNow(working)
    with pytest.raises(errors.StorageUnavailable):
        looks.look(world.deps, session.id)
    world.store = working
    assert world.session(session) == before


class StoreWithoutHostsForNow:
    """A working store, whose database goes away when somebody asks for hosts."""

    def __init__(self, store: ports.Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if name == "hosts":
            raise errors.StorageUnavailable("the database is away")
        return getattr(self._store, name)
