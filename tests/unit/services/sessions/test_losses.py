"""Sandboxes that are lost by no fault of their app: restarts, removed containers, bad hosts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.domain.pool.host import Host, HostState
from orchestrator.domain.pool.host_liveness import LinkState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions import losses
from orchestrator.domain.sessions.session import Phase, Session, SessionState
from orchestrator.services.agents import inbox
from orchestrator.services.pool import host_life, reconcile
from tests.fakes import samples
from tests.fakes.engine import EngineInMemory
from tests.fakes.fleet import REACHABLE
from tests.fakes.samples import NOW, later
from tests.unit.services.world import World


def come_back(world: World, session: Session) -> None:
    """Start a lost app again, without a pause."""
    world.converge(session)
    assert world.state(session) is SessionState.PROVISIONING, "it has to wait"
    world.start_placed()
    world.publish()
    world.clear()
    inbox.visit(world.deps, world.sandbox_of(session).id, "")
    world.report(session, Phase.READY)
    world.publish()
    world.converge(session)
    assert world.state(session) is SessionState.READY


def restart_engine(world: World, host: Host) -> None:
    """Stop all containers while the host can't be asked, and admit it again."""
    away = LinkState(up=False, since=world.clock.now(), reason="the engine does not answer")
    host_life.record_link_state(world.deps, world.store.hosts.get(host.id), away)
    for sandbox_id in list(world.engine.containers_by_sandbox):
        world.engine.crash(sandbox_id)
    world.clock.advance(5)
    host_life.record_link_state(world.deps, world.store.hosts.get(host.id), REACHABLE)
    host_life.admit(world.deps, world.fleet, world.store.hosts.get(host.id))
    assert world.store.hosts.get(host.id).state is HostState.UP


def test_any_number_of_stops_and_starts_is_no_crash_of_an_app(world: World) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    for _ in range(12):
        reconcile.remove_all_containers(world.deps, host)
        world.clock.advance(3)
        world.reconcile(host)
        come_back(world, ready)
    assert world.session(ready).crashes == ()


def test_any_number_of_restarts_of_the_engine_is_no_crash_of_an_app(world: World) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    for _ in range(12):
        restart_engine(world, host)
        world.clock.advance(20)  # the host's turn to be compared
        world.reconcile(host)
        come_back(world, ready)
        world.clock.advance(20)
    assert world.session(ready).crashes == ()


def test_what_dies_while_its_host_is_away_is_no_crash(world: World) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    away = LinkState(up=False, since=world.clock.now(), reason="no answer")
    host_life.record_link_state(world.deps, host, away)
    world.engine.crash(world.sandbox_of(ready).id)
    world.reconcile(host)
    world.converge(ready)
    assert world.session(ready).crashes == ()


@pytest.mark.parametrize(("began_s", "found_s"), [(5, 10), (-5, 70)])
def test_an_outage_excuses_no_later_crash(world: World, began_s: int, found_s: int) -> None:
    """Neither of a sandbox that was placed after it, nor one that comes long after it."""
    host = world.add_host()
    ready = world.run_session(world.create_session())
    created_at = world.sandbox_of(ready).created_at
    back_at = created_at - timedelta(seconds=began_s)
    world.store.hosts.change(host.id, lambda host: replace(host, state_since=back_at))
    world.clock.jump_to(back_at + timedelta(seconds=found_s))
    world.engine.crash(world.sandbox_of(ready).id)
    world.reconcile(host)
    assert world.sandbox_of(ready).state is SandboxState.BROKEN
    world.converge(ready)
    assert len(world.session(ready).crashes) == 1


# Hosts that a session comes to last


def add_hosts(world: World) -> tuple[Host, Host]:
    """A bad host and a good one, each with an engine of its own."""
    hosts = world.add_host(slots=20), world.add_host(slots=4)
    for host in hosts:
        world.engines.special[host.id] = EngineInMemory()
    return hosts


def run_on(world: World, host: Host) -> Session:
    """A READY session on this host, in a cold sandbox."""
    others = [other for other in world.store.hosts.list() if other.id != host.id]
    for other in others:
        world.store.hosts.change(other.id, lambda host: replace(host, cordoned=True))
    session = world.create_session()
    come_back(world, session)
    for other in others:
        world.store.hosts.change(other.id, lambda host: replace(host, cordoned=False))
    assert world.host_of(session).id == host.id
    return session


def lose_containers(world: World, host: Host) -> None:
    engine = world.engines.special[host.id]
    assert isinstance(engine, EngineInMemory)
    for sandbox_id in list(engine.containers_by_sandbox):
        engine.crash(sandbox_id)
    world.reconcile(host)


def test_a_lost_app_goes_to_another_host(world: World) -> None:
    bad, good = add_hosts(world)
    ready = run_on(world, bad)
    lose_containers(world, bad)
    come_back(world, ready)
    assert world.host_of(ready).id == good.id
    assert list(world.session(ready).lost_on) == [bad.id]


def test_a_lost_app_leaves_the_warm_sandboxes_of_its_host_to_others(world: World) -> None:
    bad, good = add_hosts(world)
    ready = run_on(world, bad)
    lose_containers(world, bad)
    world.store.hosts.change(good.id, lambda host: replace(host, cordoned=True))
    warm = world.add_warm_sandbox()
    assert warm.host_id == bad.id
    world.store.hosts.change(good.id, lambda host: replace(host, cordoned=False))
    come_back(world, ready)
    assert world.host_of(ready).id == good.id
    assert world.sandbox(warm.id).state is SandboxState.WARM


def test_a_lost_app_returns_to_its_host_if_no_other_has_room(world: World) -> None:
    bad, good = add_hosts(world)
    ready = run_on(world, bad)
    world.store.hosts.change(good.id, lambda host: replace(host, slots=0))
    lose_containers(world, bad)
    come_back(world, ready)
    assert world.host_of(ready).id == bad.id


def test_a_lost_app_waits_for_a_host_that_is_only_busy(world: World) -> None:
    bad, good = add_hosts(world)
    ready = run_on(world, bad)
    world.store.hosts.change(bad.id, lambda host: replace(host, cordoned=True))
    for _ in range(good.starts.at_once):
        placed = world.store.sandboxes.place(samples.new_sandbox(), world.clock.now())
        assert placed.host_id == good.id
    world.store.hosts.change(bad.id, lambda host: replace(host, cordoned=False))
    lose_containers(world, bad)
    world.converge(ready)
    assert world.state(ready) is SessionState.QUEUED


def test_an_agent_that_never_answers_costs_one_attempt(world: World) -> None:
    bad, good = add_hosts(world)
    world.store.hosts.change(good.id, lambda host: replace(host, cordoned=True))
    newcomer = world.create_session()
    world.converge(newcomer)
    world.start_placed()
    assert world.host_of(newcomer).id == bad.id
    world.store.hosts.change(good.id, lambda host: replace(host, cordoned=False))
    world.clock.advance(31)
    world.converge(newcomer)
    world.clock.jump_to(world.session(newcomer).due_at)
    world.converge(newcomer)
    assert world.host_of(newcomer).id == good.id
    assert world.session(newcomer).attempt == 2


def test_a_host_is_avoided_for_an_hour() -> None:
    hosts = [samples.host().id for _ in range(9)]
    session = samples.session(lost_on=dict.fromkeys(hosts[:8], NOW))
    sandbox = samples.sandbox(host_id=hosts[8])
    after = losses.hosts_after(session, sandbox, later(1))
    assert list(after) == hosts[1:], "it forgets the oldest of more than eight"
    assert losses.hosts_after(session, sandbox, later(3600)) == {hosts[8]: later(3600)}
