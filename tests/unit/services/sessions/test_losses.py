"""Sandboxes that are lost by no fault of their app: restarts, removed containers, bad hosts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.domain.pool.host import Host, HostState
from orchestrator.domain.pool.host_liveness import LinkState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import Phase, Session, SessionState
from orchestrator.services.agents import inbox
from orchestrator.services.pool import host_life, reconcile
from tests.fakes.fleet import REACHABLE
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
