"""Nudges: what is due is looked at, and a lost one is made up for."""

from __future__ import annotations

from orchestrator.domain.people.access import Queue
from orchestrator.services import nudges
from orchestrator.services.sessions import due
from tests.fakes.queue import QueueInMemory, QueueThatIsAway
from tests.fakes.samples import later
from tests.unit.services.world import World


def test_a_nudge_that_redis_does_not_take_is_said_to_be_lost(world: World) -> None:
    session = world.ask()
    assert nudges.nudge(world.deps, session)
    world.queue = QueueThatIsAway()
    assert not nudges.nudge(world.deps, session)


def test_a_lost_nudge_is_made_up_for(world: World) -> None:
    world.host()
    world.queue = QueueThatIsAway()
    session = world.ask()
    assert due.nudge_due(world.deps) == 0
    world.queue = QueueInMemory()
    assert due.nudge_due(world.deps) == 1
    assert world.queue.nudged == [session.id]


def test_of_those_that_wait_only_as_many_are_nudged_as_there_is_room_for(world: World) -> None:
    waiting = [world.ask() for _ in range(5)]
    world.host(slots=2)
    world.queue.nudges.clear()
    assert due.nudge_due(world.deps) == 3  # one more than there is room for
    assert world.queue.nudged == [session.id for session in waiting[:3]]


def test_without_room_the_first_in_the_queue_is_nudged_all_the_same(world: World) -> None:
    first, _second = world.ask(), world.ask()
    world.queue.nudges.clear()
    due.nudge_due(world.deps)
    assert world.queue.nudged == [first.id]


def test_all_that_are_under_way_and_due_are_nudged_and_come_first(world: World) -> None:
    world.host(slots=4)
    busy = [world.ask() for _ in range(3)]
    for session in busy:
        world.converge(session)
    waiting = world.ask()
    ending = world.ask()
    world.want_gone(ending)
    world.clock.advance(10)
    world.queue.nudges.clear()
    due.nudge_due(world.deps)
    assert set(world.queue.nudged[:4]) == {*(session.id for session in busy), ending.id}
    assert world.queue.nudges[4:] == [(waiting.id, Queue.NORMAL)]


def test_what_is_not_due_or_has_ended_is_left_alone(world: World) -> None:
    ended, resting = world.ask(), world.ask()
    world.want_gone(ended)
    world.converge(ended)
    world.save(resting, due_at=later(60))
    world.queue.nudges.clear()
    assert due.nudge_due(world.deps) == 0


def test_who_is_under_way_is_not_nudged_again_at_every_event(world: World) -> None:
    world.host(slots=4)
    busy = [world.ask() for _ in range(3)]
    for session in busy:
        world.converge(session)
    world.clock.advance(10)
    rounds = due.Rounds()
    assert due.nudge_due(world.deps, rounds) == 3
    world.clock.advance(0.1)
    assert due.nudge_due(world.deps, rounds) == 0, "an event so soon is no reason"
    world.clock.advance(0.4)
    assert due.nudge_due(world.deps, rounds) == 3, "the loop's own rhythm is one"


def test_who_waits_for_room_is_nudged_at_every_event(world: World) -> None:
    first = world.ask()
    rounds = due.Rounds()
    world.queue.nudges.clear()
    for _ in range(3):
        due.nudge_due(world.deps, rounds)
    assert world.queue.nudged == [first.id] * 3
