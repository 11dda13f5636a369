"""A session of a host that is being drained moves: same URL, READY throughout."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain.pool.host import Wish
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.services.pool import reconcile
from tests.fakes.probe import ProbeThatFindsNothing
from tests.fakes.proxy import ProxyInMemory
from tests.unit.services.moves import Move
from tests.unit.services.world import World

LINGER_S = 5.0


def address(world: World, slug: str | None) -> str | None:
    """Where the proxy sends a name just now."""
    return {route.slug: route.address for route in world.proxy.tables[-1].routes}.get(str(slug))


def test_a_session_moves_to_a_warm_sandbox_and_keeps_its_url(world: World, move: Move) -> None:
    slug = move.session.slug
    world.store.hosts.change(move.old.id, lambda host: replace(host, cordoned=True))
    world.warm()
    world.store.hosts.change(move.old.id, lambda host: replace(host, cordoned=False))
    move.drain()
    assert world.queue.nudged[-1] == move.session.id

    assert move.converge() == ("Relocate",)
    assert (move.other.host_id, move.other.state) == (move.new.id, SandboxState.CLAIMED)
    assert move.converge() == ("Rest",), "the agent's report brings it back"
    world.queue.nudges.clear()
    move.arrive()
    assert world.queue.nudged == [move.session.id]
    successor = move.other
    assert move.converge() == ("Switch", "Rest")
    assert world.probe.asked[-1] == successor.slug, "healthy there by its own name first"

    assert address(world, slug) == "10.0.0.1", "until the proxy has the next table"
    world.publish()
    assert address(world, slug) == "10.0.0.2"
    assert move.other.host_id == move.old.id
    assert address(world, move.other.slug) == "10.0.0.1", "it answers what it was asked before"
    assert move.converge() == ("Rest",)
    world.clock.advance(LINGER_S)
    assert move.converge() == ("LetGo", "Rest")
    move.clear()
    assert [box.id for box in world.boxes()] == [successor.id]
    found = move.now
    assert (found.sandbox_id, found.move, found.attempt) == (successor.id, None, 1)
    assert found.expires_at == move.session.expires_at
    assert world.story(found) == "queued provisioning ready"
    assert world.engine.found == {}


def test_without_a_warm_sandbox_one_is_started_for_the_move(world: World, move: Move) -> None:
    move.drain()
    assert move.converge() == ("Relocate", "Start", "Rest")
    assert (move.other.host_id, move.other.state) == (move.new.id, SandboxState.CREATING)
    move.arrive()
    assert move.converge() == ("Rest",), "its own route isn't live yet"
    world.publish()
    assert move.converge() == ("Switch", "Rest")


def test_every_table_on_the_way_sends_the_url_to_a_place_that_serves_it(
    world: World, move: Move
) -> None:
    """The publisher publishes after each step, as slowly or quickly as it may be."""
    world.proxy = ProxyInMemory()
    world.publish()
    move.drain()
    for _ in range(12):
        move.converge()
        world.publish()
        on_the_way = move.now.move is not None and move.now.move.switched_at is None
        if on_the_way and move.now.move.report is None:
            move.arrive()
        world.clock.advance(1)
        reconcile.clear(world.deps)
    places = [
        {route.slug: route.address for route in table.routes}.get(str(move.session.slug))
        for table in world.proxy.tables
    ]
    assert set(places) == {"10.0.0.1", "10.0.0.2"}
    assert places == sorted(places), "it went over once, with no gap"
    assert [box.host_id for box in world.boxes()] == [move.new.id]


def test_an_app_that_does_not_answer_at_its_new_place_is_asked_again(
    world: World, move: Move
) -> None:
    move.drain()
    move.converge()
    move.arrive()
    world.publish()
    world.probe = ProbeThatFindsNothing()
    assert move.converge() == ("Switch",)
    assert move.now.sandbox_id == move.session.sandbox_id
    assert move.now.due_at > world.clock.now()
    world.probe.nothing = False
    assert move.converge() == ("Switch", "Rest")


@pytest.mark.parametrize("room", [False, True])
def test_a_move_without_room_is_tried_again_within_seconds(
    world: World, move: Move, room: bool
) -> None:
    move.drain()
    full = world.store.hosts.change(move.new.id, lambda host: replace(host, slots=0))
    assert move.converge() == ("Relocate",)
    assert move.now.move is None
    assert 0 < (move.now.due_at - world.clock.now()).total_seconds() <= 5
    world.clock.jump_to(move.now.due_at)
    if room:
        world.store.hosts.change(full.id, lambda host: replace(host, slots=9))
    assert move.converge()[0] == "Relocate"
    assert (move.now.move is not None) is room


def test_a_wish_is_kept_on_the_move(world: World, move: Move) -> None:
    world.save(move.session, wish=Wish(region="eu"))
    move.host("10.0.0.3", region="us")
    move.drain()
    assert move.converge() == ("Relocate",)
    there = move.host("10.0.0.4", region="eu")
    world.clock.jump_to(move.now.due_at)
    move.converge()
    assert move.other.host_id == there.id
