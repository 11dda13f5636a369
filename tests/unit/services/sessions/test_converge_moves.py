"""A session moves away from a draining host: it keeps its URL and stays READY."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain.pool.host import Wish
from orchestrator.domain.pool.sandbox import SandboxState
from tests.fakes.probe import ProbeThatFails
from tests.fakes.proxy import ProxyInMemory
from tests.unit.services.moves import Move, only
from tests.unit.services.world import World

LINGER_S = 5.0


def address(world: World, slug: str | None) -> str | None:
    """The address to which the proxy sends a slug now."""
    return {route.slug: route.address for route in world.proxy.tables[-1].routes}.get(str(slug))


def test_a_session_moves_to_a_warm_sandbox_and_keeps_its_url(world: World, move: Move) -> None:
    slug = move.session.slug
    world.store.hosts.change(move.old.id, lambda host: replace(host, cordoned=True))
    world.add_warm_sandbox()
    world.store.hosts.change(move.old.id, lambda host: replace(host, cordoned=False))
    move.drain()
    assert world.queue.nudged[-1] == move.session.id

    assert move.converge() == ("Relocate",)
    assert (move.other.host_id, move.other.state) == (move.new.id, SandboxState.CLAIMED)
    assert move.converge() == ("Wait",), "the agent's report brings it back"
    world.queue.nudges.clear()
    move.arrive()
    assert world.events.sent[-1] == f"walk:{move.session.id}", "its result brings it back"
    successor = move.other
    assert move.converge() == ("Walk", "Switch", "Wait")
    assert world.probe.probed[-1] == successor.slug, (
        "the new sandbox is checked under its own slug first"
    )

    assert address(world, slug) == "10.0.0.1", "the proxy hasn't got the next table yet"
    world.publish()
    assert address(world, slug) == "10.0.0.2"
    assert move.other.host_id == move.old.id
    assert address(world, move.other.slug) == "10.0.0.1", "it goes on answering earlier requests"
    assert move.converge() == ("Wait",)
    world.clock.advance(LINGER_S)
    assert move.converge() == ("EndMove", "Wait")
    move.clear()
    assert [sandbox.id for sandbox in world.sandboxes()] == [successor.id]
    session = move.now
    assert (session.sandbox_id, session.move, session.attempt) == (successor.id, None, 1)
    assert session.expires_at == move.session.expires_at
    assert world.history(session) == "queued provisioning ready"
    assert world.engine.containers_by_sandbox == {}


def test_without_a_warm_sandbox_one_is_started_for_the_move(world: World, move: Move) -> None:
    move.drain()
    assert move.converge() == ("Relocate",)
    assert (move.other.host_id, move.other.state) == (move.new.id, SandboxState.CREATING)
    move.arrive()
    assert move.converge() == ("Wait",), "its own route isn't live yet"
    world.publish()
    assert move.converge() == ("Walk", "Switch", "Wait")


def test_every_table_during_a_move_sends_the_url_to_a_sandbox_that_serves_it(
    world: World, move: Move
) -> None:
    """The publisher publishes after each step."""
    world.proxy = ProxyInMemory()
    world.publish()
    move.drain()
    for _ in range(12):
        move.converge()
        world.publish()
        is_moving = move.now.move is not None and move.now.move.switched_at is None
        if is_moving and move.now.move.report is None:
            move.arrive()
        world.clock.advance(1)
        world.clear()
    addresses = [
        {route.slug: route.address for route in table.routes}.get(str(move.session.slug))
        for table in world.proxy.tables
    ]
    assert set(addresses) == {"10.0.0.1", "10.0.0.2"}
    assert addresses == sorted(addresses), "it switched once, without a gap"
    assert [sandbox.host_id for sandbox in world.sandboxes()] == [move.new.id]


def test_an_app_that_does_not_answer_on_its_new_host_is_probed_again(
    world: World, move: Move
) -> None:
    move.drain()
    move.converge()
    move.arrive()
    world.publish()
    world.probe = ProbeThatFails()
    assert move.converge() == ("Walk", "Wait")
    assert move.now.sandbox_id == move.session.sandbox_id
    assert move.now.due_at > world.clock.now()
    assert move.converge() == ("Wait",)
    world.probe.is_down = False
    world.queue.nudges.clear()
    world.walk(move.session)
    assert world.queue.nudged == [move.session.id]
    assert move.converge() == ("Switch", "Wait")


@pytest.mark.parametrize("room", [False, True])
def test_a_move_without_room_rests_and_is_tried_again(world: World, move: Move, room: bool) -> None:
    move.drain()
    full = world.store.hosts.change(move.new.id, lambda host: replace(host, slots=0))
    assert move.converge() == ("Relocate",)
    assert move.now.move is None
    assert 10 <= (move.now.due_at - world.clock.now()).total_seconds() <= 60
    world.clock.jump_to(move.now.due_at)
    if room:
        world.store.hosts.change(full.id, lambda host: replace(host, slots=9))
    assert move.converge()[0] == "Relocate"
    assert (move.now.move is not None) is room


def test_a_wish_holds_for_a_move(world: World, move: Move) -> None:
    world.save(move.session, wish=Wish(region="eu"))
    move.host("10.0.0.3", region="us")
    move.drain()
    assert move.converge() == ("Wait",), "it isn't woken for nothing"
    matching = move.host("10.0.0.4", region="eu")
    move.drain()
    assert move.converge() == ("Relocate",)
    assert move.other.host_id == matching.id


def test_a_move_goes_last_to_a_host_that_the_session_lost_a_sandbox_on(
    world: World, move: Move
) -> None:
    better = move.host("10.0.0.3")
    world.store.hosts.change(better.id, lambda host: replace(host, slots=3))
    world.save(move.session, lost_on={move.new.id: world.clock.now()})
    with only(world, move.new):
        world.add_warm_sandbox()
    move.drain()
    assert move.converge() == ("Relocate",)
    assert move.other.host_id == better.id


@pytest.mark.parametrize("warm", [False, True])
def test_a_move_goes_to_such_a_host_rather_than_nowhere(
    world: World, move: Move, warm: bool
) -> None:
    world.save(move.session, lost_on={move.new.id: world.clock.now()})
    if warm:
        with only(world, move.new):
            world.add_warm_sandbox()
    move.drain()
    assert move.converge() == ("Relocate",)
    assert move.other.host_id == move.new.id
