"""The order of the queue: tier first, then age. No session jumps it."""

from __future__ import annotations

from orchestrator.domain import ids
from orchestrator.domain.people.access import Principal
from orchestrator.domain.sessions.session import SessionState, Tier
from orchestrator.services.pool import claims
from orchestrator.services.sessions import requests
from tests.fakes.samples import later
from tests.unit.services.world import VISITOR, World

PRO = Principal(user_id=ids.UserId("usr_" + "p" * 26), tier=Tier.PRO)


def test_the_position_counts_the_sessions_before(world: World) -> None:
    first, second = world.create_session(), world.create_session()
    paying = world.create_session(PRO)
    positions = [
        requests.queue_position(world.deps, session) for session in (paying, first, second)
    ]
    assert positions == [1, 2, 3]
    ended = requests.end(world.deps, VISITOR, first.id)
    assert requests.queue_position(world.deps, ended) is None
    assert requests.queue_position(world.deps, second) == 2


def test_a_session_with_a_sandbox_has_no_position(world: World) -> None:
    world.add_host()
    session = world.create_session()
    world.converge(session)
    assert requests.queue_position(world.deps, world.session(session)) is None


def test_a_newcomer_never_takes_the_room_that_an_earlier_session_waits_for(world: World) -> None:
    first, second, third = (world.create_session() for _ in range(3))
    world.add_host(slots=2)
    world.converge(third)
    assert world.state(third) is SessionState.QUEUED
    for session in (second, first):
        world.converge(session)
        assert world.state(session) is SessionState.PROVISIONING
    world.converge(third)
    assert world.state(third) is SessionState.QUEUED


def test_a_session_between_two_attempts_delays_no_other(world: World) -> None:
    world.add_host(slots=1)
    first, second = world.create_session(), world.create_session()
    world.save(first, due_at=later(60))
    assert claims.find_turn(world.store, second, world.clock.now()).has_come
    world.converge(second)
    assert world.state(second) is SessionState.PROVISIONING


def test_paying_users_come_before_earlier_visitors(world: World) -> None:
    world.add_host(slots=1)
    visitor, paying = world.create_session(), world.create_session(PRO)
    world.converge(visitor)
    assert world.state(visitor) is SessionState.QUEUED
    world.converge(paying)
    assert world.state(paying) is SessionState.PROVISIONING
