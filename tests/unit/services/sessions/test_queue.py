"""Whose turn it is: tiers first, then age, and nobody jumps the queue."""

from __future__ import annotations

from orchestrator.domain import ids
from orchestrator.domain.people.access import Principal
from orchestrator.domain.sessions.session import SessionState, Tier
from orchestrator.services.pool import claims
from orchestrator.services.sessions import requests
from tests.fakes.samples import later
from tests.unit.services.world import VISITOR, World

PRO = Principal(user_id=ids.UserId("usr_" + "p" * 26), tier=Tier.PRO)


def test_the_position_counts_who_is_before(world: World) -> None:
    first, second = world.ask(), world.ask()
    paying = world.ask(PRO)
    places = [requests.queue_position(world.deps, one) for one in (paying, first, second)]
    assert places == [1, 2, 3]
    ended = requests.end(world.deps, VISITOR, first.id)
    assert requests.queue_position(world.deps, ended) is None
    assert requests.queue_position(world.deps, second) == 2


def test_who_has_a_sandbox_waits_no_more(world: World) -> None:
    world.host()
    made = world.ask()
    world.converge(made)
    assert requests.queue_position(world.deps, world.session(made)) is None


def test_a_newcomer_never_takes_the_room_that_an_earlier_one_waits_for(world: World) -> None:
    first, second, third = (world.ask() for _ in range(3))
    world.host(slots=2)
    world.converge(third)
    assert world.state(third) is SessionState.QUEUED
    for one in (second, first):
        world.converge(one)
        assert world.state(one) is SessionState.PROVISIONING
    world.converge(third)
    assert world.state(third) is SessionState.QUEUED


def test_a_session_between_two_attempts_holds_nobody_up(world: World) -> None:
    world.host(slots=1)
    first, second = world.ask(), world.ask()
    world.save(first, due_at=later(60))
    assert claims.its_turn(world.store, second, world.clock.now())
    world.converge(second)
    assert world.state(second) is SessionState.PROVISIONING


def test_paying_users_come_before_earlier_visitors(world: World) -> None:
    world.host(slots=1)
    visitor, paying = world.ask(), world.ask(PRO)
    world.converge(visitor)
    assert world.state(visitor) is SessionState.QUEUED
    world.converge(paying)
    assert world.state(paying) is SessionState.PROVISIONING
