"""What links say of hosts, and what a doubt, a loss and a return do to them and to sessions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain.pool.host import Drain, Host, HostState, Reach
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import SessionState
from orchestrator.services.pool import host_life, reconcile
from tests.fakes.fleet import HERE
from tests.fakes.samples import NOW, later
from tests.unit.services.world import World

AWAY = Reach(up=False, since=NOW, reason="no route to host")
NEXT = "spawnai/sandbox:next"


def stored(world: World, host: Host) -> Host:
    return world.store.hosts.get(host.id)


def look(world: World, host: Host, reach: Reach) -> Host:
    return host_life.look(world.deps, stored(world, host), reach)


def admit(world: World, host: Host) -> Host:
    return host_life.admit(world.deps, world.fleet, stored(world, host))


def audited(world: World) -> list[str]:
    return [entry.action for entry in reversed(world.store.audit.list())]


# Looks


def test_a_host_that_is_as_it_was_is_not_written_at_every_look(world: World) -> None:
    host = world.host()
    world.clock.advance(10)
    look(world, host, HERE)
    assert stored(world, host) == host
    world.clock.advance(0.1)
    look(world, host, HERE)
    assert stored(world, host) == replace(host, seen_at=world.clock.now())
    assert world.events.sent == []


def test_a_host_that_does_not_answer_keeps_what_it_has_for_15_seconds(world: World) -> None:
    host = world.host()
    ready = world.run(world.ask())
    assert look(world, host, AWAY).state is HostState.SUSPECT
    assert stored(world, host).reason == "no route to host"
    assert "pool" in world.events.sent
    world.clock.advance(14.9)
    assert look(world, host, AWAY).state is HostState.SUSPECT
    assert world.session(ready) == ready
    assert world.box(world.sandbox_of(ready).id).routed, "its apps go on"


def test_a_lost_host_takes_its_sandboxes_with_it_and_its_sessions_are_told(world: World) -> None:
    host = world.host()
    ready = world.run(world.ask())
    warm = world.warm()
    look(world, host, AWAY)
    world.clock.advance(15)
    world.queue.nudges.clear()
    world.events.sent.clear()
    after = look(world, host, AWAY)
    assert (after.state, after.generation) == (HostState.LOST, host.generation + 1)
    for box in (warm, world.sandbox_of(ready)):
        assert world.box(box.id).state is SandboxState.BROKEN
        assert world.box(box.id).reason == f"its host {host.name} was lost"
    assert world.queue.nudged == [ready.id]
    assert "routes" in world.events.sent
    assert audited(world) == ["host_lost"]


def test_a_host_that_was_lost_is_swept_before_it_is_up(world: World) -> None:
    host = world.host()
    box = world.warm()
    world.lose(host)
    assert look(world, host, HERE).state is HostState.JOINING
    assert world.engine.found.keys() == {box.id}
    assert admit(world, host).state is HostState.UP
    assert world.engine.found == {}


def test_a_blink_costs_nothing(world: World) -> None:
    host = world.host()
    ready = world.run(world.ask())
    look(world, host, AWAY)
    world.clock.advance(10)
    assert look(world, host, HERE).state is HostState.SUSPECT
    assert admit(world, host).state is HostState.UP
    assert stored(world, host).generation == host.generation
    assert world.session(ready) == ready
    assert world.engine.removed == []


def test_what_should_alert_somebody_is_audited_once(world: World) -> None:
    host = world.host()
    changed = replace(AWAY, code="host_key_changed", reason="its key is another one now")
    for _ in range(5):
        look(world, host, changed)
        world.clock.advance(1)
    assert audited(world) == ["host_key_changed"]
    assert world.store.audit.list()[0].detail == "its key is another one now"


def test_a_look_never_undoes_what_an_operator_did_meanwhile(world: World) -> None:
    host = world.host()
    world.store.hosts.change(host.id, lambda found: replace(found, cordoned=True, slots=7))
    host_life.look(world.deps, host, AWAY)  # with what was read before
    after = stored(world, host)
    assert (after.state, after.cordoned, after.slots) == (HostState.SUSPECT, True, 7)


def test_a_host_that_was_admitted_during_a_look_is_not_lost_by_it(world: World) -> None:
    host = world.host()
    stale = replace(host, state=HostState.SUSPECT, state_since=later(-99))
    host_life.look(world.deps, stale, replace(AWAY, since=later(-99)))
    assert stored(world, host) == host


@pytest.mark.parametrize("reach", [HERE, AWAY])
@pytest.mark.parametrize("state", HostState)
def test_a_host_that_was_removed_during_a_look_is_let_be(
    world: World, state: HostState, reach: Reach
) -> None:
    host = world.host(state=state, seen_at=later(-99), state_since=later(-99))
    world.store.hosts.remove(host.id)
    host_life.look(world.deps, host, replace(reach, since=later(-99)))
    assert world.store.hosts.list() == []


# What a loss does to sessions


def test_a_ready_session_of_a_lost_host_comes_back_under_its_url(world: World) -> None:
    lost = world.host()
    ready = world.run(world.ask())
    other = world.host(publish_address="10.0.0.2")
    world.lose(lost)
    again = world.settle(ready, rounds=3)
    box = world.sandbox_of(ready)
    assert (box.host_id, box.slug) == (other.id, ready.slug)
    assert (again.attempt, again.expires_at) == (1, ready.expires_at)
    assert world.engine.removed == [], "nobody can be asked there"


def test_what_was_in_progress_on_a_lost_host_starts_over_as_the_next_attempt(
    world: World,
) -> None:
    lost = world.host()
    world.warm()
    session = world.ask()
    world.converge(session)
    other = world.host(publish_address="10.0.0.2")
    world.lose(lost)
    world.settle(session, rounds=4)
    found = world.session(session)
    assert (found.state, found.attempt) == (SessionState.PROVISIONING, 2)
    assert world.host_of(session).id == other.id


def test_a_loss_that_a_session_was_not_told_of_is_made_up_for(world: World) -> None:
    host = world.host()
    ready = world.run(world.ask())
    world.lose(host)
    world.save(ready, due_at=ready.expires_at)
    world.queue.nudges.clear()
    reconcile.clear(world.deps)
    assert world.queue.nudged == [ready.id]


def test_a_lateness_that_is_the_hosts_does_not_fail_an_attempt(world: World) -> None:
    host = world.host()
    world.warm()
    session = world.ask()
    world.converge(session)
    world.clock.advance(29)
    look(world, host, replace(AWAY, since=world.clock.now()))
    world.clock.advance(10)
    world.converge(session)
    assert world.session(session).failure is None
    admit(world, host)
    world.clock.advance(14)
    world.converge(session)
    assert world.session(session).failure is None, "what was on its way is still arriving"
    world.clock.advance(1)
    world.converge(session)
    failure = world.session(session).failure
    assert failure is not None
    assert failure.code == "sandbox_not_ready"


def test_a_host_that_leaves_is_not_told_apart_by_its_link(world: World) -> None:
    host = world.host(drain=Drain.LEAVE)
    assert look(world, host, AWAY).state is HostState.UP
