"""Moves that come to nothing: losses, refusals, ends and races on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain import errors
from orchestrator.domain.people.tokens import SessionGrant
from orchestrator.domain.sessions.session import Failure, Phase, Report, SessionState
from orchestrator.services.agents import access, reports
from orchestrator.services.pool import hosts
from tests.fakes.engine import EngineThatIsDown, EngineThatRefuses
from tests.unit.services.moves import Move
from tests.unit.services.world import OPERATOR, RaceToWrite, World


def gone_back(world: World, move: Move) -> None:
    """The move has come to nothing: the app goes on where it was, and nothing is left over."""
    assert move.now.move is None
    assert move.now.sandbox_id == move.session.sandbox_id
    move.clear()
    assert [box.host_id for box in world.boxes()] == [move.old.id]


def test_an_app_that_gives_up_at_its_new_place_goes_on_at_the_old_one(
    world: World, move: Move
) -> None:
    move.drain()
    move.converge()
    move.arrive(Phase.FAILED, Failure(code="app_not_ready", message="it exited"))
    assert move.converge() == ("LetGo", "Rest")
    gone_back(world, move)
    world.clock.jump_to(move.now.due_at)
    assert move.converge()[0] == "Relocate", "it is tried again after a while"


def test_an_app_that_takes_too_long_at_its_new_place_goes_on_at_the_old_one(
    world: World, move: Move
) -> None:
    move.drain()
    move.converge()
    world.clock.advance(90)
    assert move.converge() == ("Rest",)
    world.clock.advance(0.1)
    assert move.converge() == ("LetGo", "Rest")
    gone_back(world, move)


def test_a_new_place_that_is_lost_on_the_way_costs_only_the_move(world: World, move: Move) -> None:
    move.drain()
    move.converge()
    move.arrive()
    world.lose(move.new)
    assert move.converge() == ("LetGo", "Rest")
    gone_back(world, move)


def test_an_old_place_that_is_lost_on_the_way_makes_a_recovery_of_the_move(
    world: World, move: Move
) -> None:
    move.drain()
    move.converge()
    world.lose(move.old)
    world.settle(move.session, rounds=5)
    move.clear()
    found = move.now
    assert (found.slug, found.attempt, found.move) == (move.session.slug, 1, None)
    assert world.host_of(found).id == move.new.id
    assert [box.id for box in world.boxes()] == [found.sandbox_id]


def test_an_old_place_that_is_lost_after_the_switch_is_let_go_at_once(
    world: World, move: Move
) -> None:
    move.drain()
    move.converge()
    move.arrive()
    world.publish()
    assert move.converge() == ("Switch", "Rest")
    world.publish()
    world.lose(move.old)
    assert move.converge() == ("LetGo", "Rest")
    move.clear()
    assert [box.host_id for box in world.boxes()] == [move.new.id]


@pytest.mark.parametrize("switched", [False, True])
def test_a_session_that_ends_on_the_way_leaves_nothing_on_either_host(
    world: World, move: Move, switched: bool
) -> None:
    move.drain()
    move.converge()
    if switched:
        move.arrive()
        world.publish()
        assert move.converge() == ("Switch", "Rest")
    world.want_gone(move.session)
    for _ in range(3):
        world.converge(move.session)
        move.clear()
    assert world.state(move.session) is SessionState.DESTROYED
    assert world.boxes() == []
    there = world.engines.special[move.new.id]
    assert (world.engine.found, there.containers()) == ({}, [])


def test_a_drain_that_is_taken_back_lets_who_is_on_the_way_arrive(world: World, move: Move) -> None:
    move.drain()
    move.converge()
    hosts.cordon(world.deps, OPERATOR, move.old.name, cordoned=False)
    move.arrive()
    world.publish()
    assert move.converge() == ("Switch", "Rest")


def test_a_start_that_finds_docker_away_costs_only_the_move(world: World, move: Move) -> None:
    world.engines.special[move.new.id] = EngineThatIsDown()
    move.drain()
    assert move.converge() == ("Relocate", "Start", "Rest")
    assert move.now.move is None
    assert move.now.failure is None


def test_a_host_that_refuses_is_not_tried_again_while_another_may_take_it(
    world: World, move: Move
) -> None:
    world.engines.special[move.new.id] = EngineThatRefuses()
    third = move.host("10.0.0.3")
    world.store.hosts.change(third.id, lambda host: replace(host, slots=3))  # less room
    move.drain()
    assert move.converge() == ("Relocate", "Start", "Rest")
    assert (move.now.move, move.now.failure) == (None, None)
    world.clock.jump_to(move.now.due_at)
    assert move.converge() == ("Relocate", "Start", "Rest")
    assert move.other.host_id == third.id
    move.arrive()
    world.publish()
    assert move.converge() == ("Switch", "Rest")
    assert move.now.refused_by == ()


def test_a_host_that_refused_is_asked_again_when_there_is_no_other(
    world: World, move: Move
) -> None:
    world.engines.special[move.new.id] = EngineThatRefuses(times=1)
    move.drain()
    move.converge()
    for _ in range(3):
        if move.now.move is not None:
            break
        world.clock.jump_to(move.now.due_at)
        move.converge()
    assert move.other.host_id == move.new.id


# What agents may do on the way


def test_the_agent_that_is_left_behind_and_the_one_that_waits_are_told_apart(
    world: World, move: Move
) -> None:
    move.drain()
    move.converge()
    move.arrive()
    late = Report(seq=9, phase=Phase.FAILED, progress=0)
    world.publish()
    assert move.converge() == ("Switch", "Rest")
    assert not reports.report(world.deps, move.now, move.other.id, late, [])
    grant = SessionGrant(session_id=move.now.id, attempt=1, sandbox_id=move.other.id)
    with pytest.raises(errors.Forbidden) as caught:
        access.authorize(world.deps, world.deps.tokens.for_session(grant))
    assert caught.value.code == "token_refused"
    assert access.authorize(world.deps, world.token(move.session)).id == move.session.id


def test_what_the_new_agent_says_is_heard_however_much_the_old_one_had_said(
    world: World, move: Move
) -> None:
    assert world.report(move.session, Phase.READY, seq=99)
    move.drain()
    move.converge()
    move.arrive()
    world.publish()
    assert move.converge() == ("Switch", "Rest")
    assert move.now.sandbox_id is not None
    gave_up = Failure(code="app_not_ready", message="it ran out of memory")
    said = Report(seq=2, phase=Phase.FAILED, progress=100, failure=gave_up)
    assert reports.report(world.deps, move.now, move.now.sandbox_id, said, [])
    world.converge(move.session)
    assert move.now.failure == gave_up


def test_a_move_costs_nothing_in_a_race(world: World, move: Move) -> None:
    """Somebody extends the session just before each write."""
    move.drain()
    sound = world.store
    world.store = RaceToWrite(sound)
    assert move.converge() == ("Relocate", "Relocate", "Start", "Rest")
    world.store = sound
    move.arrive()
    world.publish()
    world.store = RaceToWrite(sound)
    assert move.converge() == ("Switch", "Switch", "Rest")
    assert len(world.boxes()) == 2
