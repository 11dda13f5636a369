"""Link states: what an outage, a loss and a return do to hosts and their sessions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.domain.pool.host_liveness import LinkState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import SessionState
from orchestrator.services.pool import host_life
from tests.fakes.fleet import REACHABLE
from tests.fakes.samples import NOW, later
from tests.unit.services.world import World

AWAY = LinkState(up=False, since=NOW, reason="no route to host")
NEXT = "spawnai/sandbox:next"


def stored(world: World, host: Host) -> Host:
    return world.store.hosts.get(host.id)


def record(world: World, host: Host, link: LinkState) -> Host:
    return host_life.record_link_state(world.deps, stored(world, host), link)


def admit(world: World, host: Host) -> Host:
    return host_life.admit(world.deps, world.fleet, stored(world, host))


def audited(world: World) -> list[str]:
    return [entry.action for entry in reversed(world.store.audit.list())]


# Link states


def test_an_unchanged_host_is_not_written_in_every_pass(world: World) -> None:
    host = world.add_host()
    for seconds, seen_at in ((10, host.seen_at), (0.1, later(10.1))):
        world.clock.advance(seconds)
        record(world, host, REACHABLE)
        host_life.record_seen(world.deps, [host])
        assert stored(world, host) == replace(host, seen_at=seen_at)
    assert world.events.sent == []


def test_a_host_that_does_not_answer_keeps_what_it_has_for_15_seconds(world: World) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    assert record(world, host, AWAY).state is HostState.SUSPECT
    assert stored(world, host).reason == "no route to host"
    assert "pool" in world.events.sent
    world.clock.advance(14.9)
    assert record(world, host, AWAY).state is HostState.SUSPECT
    assert world.session(ready) == ready
    assert world.sandbox(world.sandbox_of(ready).id).routed, "its apps go on"


def test_a_lost_host_breaks_its_sandboxes_and_wakes_their_sessions(world: World) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    warm = world.add_warm_sandbox()
    record(world, host, AWAY)
    world.clock.advance(15)
    world.queue.nudges.clear()
    world.events.sent.clear()
    after = record(world, host, AWAY)
    assert (after.state, after.generation) == (HostState.LOST, host.generation + 1)
    for sandbox in (warm, world.sandbox_of(ready)):
        assert world.sandbox(sandbox.id).state is SandboxState.BROKEN
        assert world.sandbox(sandbox.id).reason == f"its host {host.name} was lost"
    assert world.queue.nudged == [ready.id]
    assert "routes" in world.events.sent
    assert audited(world) == ["host_lost"]


def test_a_host_that_was_lost_is_swept_before_it_is_up(world: World) -> None:
    host = world.add_host()
    sandbox = world.add_warm_sandbox()
    world.lose_host(host)
    assert record(world, host, REACHABLE).state is HostState.JOINING
    assert world.engine.containers_by_sandbox.keys() == {sandbox.id}
    assert admit(world, host).state is HostState.UP
    assert world.engine.containers_by_sandbox == {}


def test_a_short_outage_costs_nothing(world: World) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    record(world, host, AWAY)
    world.clock.advance(10)
    assert record(world, host, REACHABLE).state is HostState.SUSPECT
    assert admit(world, host).state is HostState.UP
    assert stored(world, host).generation == host.generation
    assert world.session(ready) == ready
    assert world.engine.removed == []


def test_a_reason_for_alarm_is_audited_once(world: World) -> None:
    host = world.add_host()
    changed = replace(AWAY, code="host_key_changed", reason="its key is another one now")
    for _ in range(5):
        record(world, host, changed)
        world.clock.advance(1)
    assert audited(world) == ["host_key_changed"]
    assert world.store.audit.list()[0].detail == "its key is another one now"


def test_a_link_state_never_undoes_an_operators_change(world: World) -> None:
    host = world.add_host()
    world.store.hosts.change(host.id, lambda host: replace(host, cordoned=True, slots=7))
    host_life.record_link_state(world.deps, host, AWAY)  # with the host as it was before
    after = stored(world, host)
    assert (after.state, after.cordoned, after.slots) == (HostState.SUSPECT, True, 7)


def test_a_host_that_was_admitted_meanwhile_is_not_declared_lost(world: World) -> None:
    host = world.add_host()
    stale = replace(host, state=HostState.SUSPECT, state_since=later(-99))
    host_life.record_link_state(world.deps, stale, replace(AWAY, since=later(-99)))
    assert stored(world, host) == host


@pytest.mark.parametrize("link", [REACHABLE, AWAY])
@pytest.mark.parametrize("state", HostState)
def test_a_host_that_was_removed_meanwhile_stays_removed(
    world: World, state: HostState, link: LinkState
) -> None:
    host = world.add_host(state=state, seen_at=later(-99), state_since=later(-99))
    world.store.hosts.remove(host.id)
    host_life.record_link_state(world.deps, host, replace(link, since=later(-99)))
    assert world.store.hosts.list() == []


# What a loss does to sessions


def test_a_ready_session_of_a_lost_host_comes_back_under_its_url(world: World) -> None:
    lost = world.add_host()
    ready = world.run_session(world.create_session())
    other = world.add_host(publish_address="10.0.0.2")
    world.lose_host(lost)
    session = world.settle(ready, rounds=3)
    sandbox = world.sandbox_of(ready)
    assert (sandbox.host_id, sandbox.slug) == (other.id, ready.slug)
    assert (session.attempt, session.expires_at) == (1, ready.expires_at)
    assert world.engine.removed == [], "its engine can't be asked"


def test_a_session_in_progress_on_a_lost_host_starts_its_next_attempt(
    world: World,
) -> None:
    lost = world.add_host()
    world.add_warm_sandbox()
    session = world.create_session()
    world.converge(session)
    other = world.add_host(publish_address="10.0.0.2")
    world.lose_host(lost)
    world.settle(session, rounds=4)
    current = world.session(session)
    assert (current.state, current.attempt) == (SessionState.PROVISIONING, 2)
    assert world.host_of(session).id == other.id


def test_a_session_that_missed_the_loss_of_its_host_is_woken_later(world: World) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    world.lose_host(host)
    world.save(ready, due_at=ready.expires_at)
    world.queue.nudges.clear()
    world.clear()
    assert world.queue.nudged == [ready.id]


def test_a_deadline_does_not_count_while_the_host_is_unreachable(world: World) -> None:
    host = world.add_host()
    world.add_warm_sandbox()
    session = world.create_session()
    world.converge(session)
    world.clock.advance(29)
    record(world, host, replace(AWAY, since=world.clock.now()))
    world.clock.advance(10)
    world.converge(session)
    assert world.session(session).failure is None
    admit(world, host)
    world.clock.advance(14)
    world.converge(session)
    assert world.session(session).failure is None, "reports may still be on their way"
    world.clock.advance(1)
    world.converge(session)
    current = world.session(session)
    assert (current.state, current.attempt) == (SessionState.QUEUED, 2)


def test_the_link_of_a_leaving_host_does_not_matter(world: World) -> None:
    host = world.add_host(drain=Drain.LEAVE)
    assert record(world, host, AWAY).state is HostState.UP
