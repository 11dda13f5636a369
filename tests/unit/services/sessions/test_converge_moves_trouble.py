"""Moves that fail: losses, refusals, ends and races during a move."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain import errors
from orchestrator.domain.people.tokens import SessionGrant
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import Failure, Phase, Report, SessionState
from orchestrator.services.agents import access, reports
from orchestrator.services.pool import hosts
from orchestrator.services.sessions import relocation
from tests.fakes.engine import EngineThatIsDown, EngineThatRefuses
from tests.unit.services.moves import Move
from tests.unit.services.world import OPERATOR, RaceToWrite, World


def assert_moved_back(world: World, move: Move) -> None:
    """Assert that the app runs where it was, and that nothing is left on the other host."""
    assert move.now.move is None
    assert move.now.sandbox_id == move.session.sandbox_id
    move.clear()
    assert [sandbox.host_id for sandbox in world.sandboxes()] == [move.old.id]


def test_an_app_that_fails_on_its_new_host_stays_on_the_old_one(world: World, move: Move) -> None:
    move.drain()
    move.converge()
    move.arrive(Phase.FAILED, Failure(code="app_not_ready", message="it exited"))
    assert move.converge() == ("EndMove", "Wait")
    assert_moved_back(world, move)
    world.clock.jump_to(move.now.due_at)
    assert move.converge()[0] == "Relocate", "the move is tried again after a while"


def test_an_app_that_starts_too_slowly_on_its_new_host_stays_on_the_old_one(
    world: World, move: Move
) -> None:
    move.drain()
    move.converge()
    world.clock.advance(90)
    assert move.converge() == ("Wait",)
    world.clock.advance(0.1)
    assert move.converge() == ("EndMove", "Wait")
    assert_moved_back(world, move)


def test_losing_the_new_host_during_a_move_only_ends_the_move(world: World, move: Move) -> None:
    move.drain()
    move.converge()
    move.arrive()
    world.lose_host(move.new)
    assert move.converge() == ("EndMove", "Wait")
    assert_moved_back(world, move)


def test_losing_the_old_host_during_a_move_turns_it_into_a_recovery(
    world: World, move: Move
) -> None:
    move.drain()
    move.converge()
    world.lose_host(move.old)
    world.settle(move.session, rounds=5)
    move.clear()
    session = move.now
    assert (session.slug, session.attempt, session.move) == (move.session.slug, 1, None)
    assert world.host_of(session).id == move.new.id
    assert [sandbox.id for sandbox in world.sandboxes()] == [session.sandbox_id]


def test_an_old_host_that_is_lost_after_the_switch_is_released_at_once(
    world: World, move: Move
) -> None:
    move.drain()
    move.converge()
    move.arrive()
    world.publish()
    assert move.converge() == ("Walk", "Switch", "Wait")
    world.publish()
    world.lose_host(move.old)
    assert move.converge() == ("EndMove", "Wait")
    move.clear()
    assert [sandbox.host_id for sandbox in world.sandboxes()] == [move.new.id]


@pytest.mark.parametrize("switched", [False, True])
def test_a_session_that_ends_during_a_move_leaves_nothing_on_either_host(
    world: World, move: Move, switched: bool
) -> None:
    move.drain()
    move.converge()
    if switched:
        move.arrive()
        world.publish()
        assert move.converge() == ("Walk", "Switch", "Wait")
    world.request_end(move.session)
    for _ in range(3):
        world.converge(move.session)
        move.clear()
    assert world.state(move.session) is SessionState.DESTROYED
    assert world.sandboxes() == []
    new_engine = world.engines.special[move.new.id]
    assert (world.engine.containers_by_sandbox, new_engine.containers()) == ({}, [])


def test_a_move_goes_on_after_its_drain_is_taken_back(world: World, move: Move) -> None:
    move.drain()
    move.converge()
    hosts.cordon(world.deps, OPERATOR, move.old.name, cordoned=False)
    move.arrive()
    world.publish()
    assert move.converge() == ("Walk", "Switch", "Wait")


def test_a_start_while_docker_is_down_only_ends_the_move(world: World, move: Move) -> None:
    world.engines.special[move.new.id] = EngineThatIsDown()
    move.drain()
    assert move.converge() == ("Relocate",)
    world.start_placed()
    assert move.converge()[0] == "EndMove"
    assert move.now.move is None
    assert move.now.failure is None


def test_a_host_that_refuses_is_not_tried_again_while_another_may_take_it(
    world: World, move: Move
) -> None:
    world.engines.special[move.new.id] = EngineThatRefuses()
    third = move.host("10.0.0.3")
    world.store.hosts.change(third.id, lambda host: replace(host, slots=3))  # less room
    move.drain()
    assert move.converge() == ("Relocate",)
    world.start_placed()
    assert move.converge()[0] == "EndMove"
    assert (move.now.move, move.now.failure) == (None, None)
    world.clock.jump_to(move.now.due_at)
    assert move.converge() == ("Relocate",)
    world.start_placed()
    assert move.other.host_id == third.id
    move.arrive()
    world.publish()
    assert move.converge() == ("Walk", "Switch", "Wait")
    assert move.now.refused_by == ()


def test_a_host_that_refused_is_asked_again_when_there_is_no_other(
    world: World, move: Move
) -> None:
    world.engines.special[move.new.id] = EngineThatRefuses(times=1)
    move.drain()
    move.converge()
    world.start_placed()
    move.converge()
    assert move.now.move is None
    for _ in range(3):
        if move.now.move is not None:
            break
        world.clock.jump_to(move.now.due_at)
        move.converge()
    assert move.other.host_id == move.new.id


# Agents during a move


def test_after_the_switch_only_the_new_agent_counts(world: World, move: Move) -> None:
    move.drain()
    move.converge()
    move.arrive()
    late = Report(seq=9, phase=Phase.FAILED, progress=0)
    world.publish()
    assert move.converge() == ("Walk", "Switch", "Wait")
    assert not reports.record_report(world.deps, move.now, move.other.id, late, [])
    grant = SessionGrant(session_id=move.now.id, attempt=1, sandbox_id=move.other.id)
    with pytest.raises(errors.Forbidden) as caught:
        access.authorize(world.deps, world.deps.tokens.for_session(grant))
    assert caught.value.code == "token_refused"
    assert access.authorize(world.deps, world.token(move.session)).id == move.session.id


def test_reports_of_the_new_agent_count_from_their_own_first_number(
    world: World, move: Move
) -> None:
    assert world.report(move.session, Phase.READY, seq=99)
    move.drain()
    move.converge()
    move.arrive()
    world.publish()
    assert move.converge() == ("Walk", "Switch", "Wait")
    assert move.now.sandbox_id is not None
    gave_up = Failure(code="app_not_ready", message="it ran out of memory")
    report = Report(seq=2, phase=Phase.FAILED, progress=100, failure=gave_up)
    assert reports.record_report(world.deps, move.now, move.now.sandbox_id, report, [])
    world.converge(move.session)
    assert move.now.failure == gave_up


def test_a_move_survives_lost_races(world: World, move: Move) -> None:
    """Another process writes the session just before each write."""
    move.drain()
    sound = world.store
    world.store = RaceToWrite(sound)
    assert move.converge() == ("Relocate", "Relocate")
    world.store = sound
    move.arrive()
    world.publish()
    world.store = RaceToWrite(sound)
    assert world.walk(move.session)
    world.store = RaceToWrite(sound)
    assert move.converge() == ("Switch", "Switch", "Wait")
    assert len(world.sandboxes()) == 2


def test_a_move_ended_by_a_worker_that_missed_the_switch_stops_nothing(
    world: World, move: Move
) -> None:
    move.drain()
    move.converge()
    move.arrive()
    missed, successor = move.now, move.other
    world.publish()
    assert "Switch" in move.converge()
    with pytest.raises(errors.StaleWrite):
        relocation.end_move(world.deps, missed, successor, "it was late", world.clock.now())
    sandbox = world.sandbox_of(move.session)
    assert (sandbox.id, sandbox.state, sandbox.slug) == (
        successor.id,
        SandboxState.CLAIMED,
        move.session.slug,
    )
