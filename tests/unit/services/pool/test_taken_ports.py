"""Ports that other programs hold are set aside, and cost nobody an attempt."""

from __future__ import annotations

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import Session, SessionState
from orchestrator.services.agents import inbox
from orchestrator.services.pool import claims, host_life, refill
from tests.fakes import samples
from tests.fakes.engine import EngineInMemory, EngineWithTakenPorts
from tests.unit.services.moves import Move
from tests.unit.services.world import World

ALL_PORTS = range(21000, 21100)


def occupy(world: World, *ports: int) -> tuple[Host, EngineWithTakenPorts]:
    """The only host, on which other programs hold these ports."""
    engine = EngineWithTakenPorts(ports)
    world.engine = engine
    return world.add_host(), engine


def start(world: World, session: Session) -> Sandbox:
    """Place and start the sandbox of a session that is due."""
    world.clock.jump_to(world.session(session).due_at)
    world.converge(session)
    world.start_placed()
    return world.sandbox_of(session)


def place_warm(world: World) -> Sandbox:
    return world.store.sandboxes.place(samples.new_sandbox(image=world.image), world.clock.now())


def test_a_session_gets_the_next_free_port_at_once_and_loses_no_attempt(world: World) -> None:
    _, engine = occupy(world, 21000, 21001, 21002)
    session = world.create_session()
    sandbox = start(world, session)
    assert engine.tried == [21000, 21001, 21002, 21003]
    assert (sandbox.port, sandbox.state) == (21003, SandboxState.CREATING)
    assert sandbox.container_id is not None
    current = world.session(session)
    assert (current.attempt, current.failure) == (1, None)
    assert world.history(session) == "queued provisioning"


def test_a_warm_sandbox_gets_the_next_free_port_at_once(world: World) -> None:
    _, engine = occupy(world, 21000)
    placed = place_warm(world)
    refill.launch(world.deps, placed)
    assert engine.tried == [21000, 21001]
    inbox.visit(world.deps, placed.id, "")
    world.publish()
    warm = world.sandbox(placed.id)
    assert (warm.state, warm.port) == (SandboxState.WARM, 21001)


def test_the_successor_of_a_move_gets_the_next_free_port_at_once(move: Move) -> None:
    engine = move.world.engines.special[move.new.id] = EngineWithTakenPorts([21000])
    move.drain()
    move.converge()
    move.world.start_placed()
    assert engine.tried == [21000, 21001]
    assert move.other.state is SandboxState.CREATING


def run_through_all_ports(world: World) -> None:
    """Start and remove one sandbox after the other, until each port has had its turn."""
    for _ in ALL_PORTS:
        sandbox = place_warm(world)
        claims.start(world.deps, sandbox)
        claims.retire(world.deps, world.sandbox(sandbox.id), "not needed")
        world.publish()
        world.clear()


def test_a_port_that_is_set_aside_is_tried_again_after_ten_minutes(world: World) -> None:
    host, engine = occupy(world, 21000, 21001)
    run_through_all_ports(world)
    world.clock.advance(599)
    run_through_all_ports(world)
    assert engine.tried.count(21000) == engine.tried.count(21001) == 1
    assert world.store.hosts.get(host.id).ports_set_aside(world.clock.now()) == [21000, 21001]
    world.clock.advance(1)
    assert world.store.hosts.get(host.id).ports_set_aside(world.clock.now()) == []
    engine.taken.clear()
    run_through_all_ports(world)
    assert 21000 in engine.tried[10:]


def test_a_start_that_meets_many_taken_ports_ends_and_the_next_goes_on(world: World) -> None:
    _, engine = occupy(world, *range(21000, 21025))
    session = world.create_session()
    for _ in range(3):
        sandbox = start(world, session)
        world.publish()
        world.clear()
    assert len(engine.tried) == len(set(engine.tried)), "no port twice"
    assert sandbox.port == 21025
    assert sandbox.container_id is not None
    assert (world.session(session).attempt, world.session(session).failure) == (1, None)


def test_without_any_port_a_session_waits_and_starts_once_one_is_free(world: World) -> None:
    host, engine = occupy(world, *ALL_PORTS)
    session = world.create_session()
    for _ in range(20):
        world.clock.jump_to(world.session(session).due_at)
        world.converge(session)
        world.start_placed()
        world.publish()
        world.clear()
        host_life.refresh(world.deps, world.fleet, world.store.hosts.get(host.id))
    current = world.session(session)
    assert (current.state, current.attempt) == (SessionState.QUEUED, 1)
    assert sorted(engine.tried) == list(ALL_PORTS), "no port is tried in a loop"
    assert (
        world.store.hosts.get(host.id).shortage
        == "ports: none of SPAWN_PORTS is free; other programs hold 100 of them"
    )
    engine.taken.clear()
    world.clock.advance(601)
    host_life.refresh(world.deps, world.fleet, world.store.hosts.get(host.id))
    assert world.store.hosts.get(host.id).shortage == ""
    assert start(world, session).container_id is not None
    assert world.session(session).attempt == 1


def test_a_session_goes_to_a_host_that_has_ports(world: World) -> None:
    bad, good = world.add_host(slots=9), world.add_host(slots=2)
    world.engines.special[bad.id] = EngineWithTakenPorts(ALL_PORTS)
    world.engines.special[good.id] = EngineInMemory()
    session = world.create_session()
    for _ in range(20):
        sandbox = start(world, session)
        world.publish()
        world.clear()
        if sandbox.container_id is not None:
            break
    assert world.host_of(session).id == good.id
    assert world.session(session).attempt == 1


def test_the_route_to_a_taken_port_is_never_taken_for_the_sandbox_s(world: World) -> None:
    """The publisher may have read the old port just before it changed."""
    occupy(world, 21000)
    placed = place_warm(world)
    world.publish()
    assert world.sandbox(placed.id).routed
    refill.launch(world.deps, placed)
    assert not world.sandbox(placed.id).routed
    assert world.store.sandboxes.mark_routes(samples.routes_of(placed), [], samples.NOW) == []
    world.publish()
    assert world.sandbox(placed.id).routed
    (route,) = world.store.sandboxes.routes().routes.values()
    assert route.port == 21001


def test_a_sandbox_that_was_retired_meanwhile_gets_no_other_port(world: World) -> None:
    host, engine = occupy(world, 21000)
    placed = place_warm(world)
    claims.retire(world.deps, placed, "its session is to end")
    with pytest.raises(errors.StaleWrite):
        claims.start(world.deps, placed)
    assert engine.tried == [21000]
    assert world.store.hosts.get(host.id).taken_ports == {}
