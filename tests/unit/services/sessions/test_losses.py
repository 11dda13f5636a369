"""Sandboxes that are lost by no fault of their app: restarts, removed containers, bad hosts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.people.access import Principal
from orchestrator.domain.pool.host import STARTS_IN_LINE, Host, HostState, Losses
from orchestrator.domain.pool.host_liveness import LinkState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions import losses
from orchestrator.domain.sessions.session import Phase, Session, SessionState, Tier
from orchestrator.services.agents import inbox
from orchestrator.services.pool import host_life, reconcile
from tests.fakes import samples
from tests.fakes.engine import EngineInMemory, EngineThatEnds
from tests.fakes.fleet import REACHABLE
from tests.fakes.samples import NOW, later
from tests.unit.services.moves import only
from tests.unit.services.world import VISITOR, World


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


def test_what_stops_while_its_engine_is_being_ended_is_judged_when_it_is_back(
    world: World,
) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    sound, world.engine = world.engine, EngineThatEnds()
    world.engine.containers_by_sandbox = sound.containers_by_sandbox
    world.engine.crash(world.sandbox_of(ready).id)
    with pytest.raises(errors.EngineUnavailable):
        world.reconcile(host)
    assert world.sandbox_of(ready).state is SandboxState.CLAIMED
    world.engine = sound
    restart_engine(world, host)
    world.reconcile(host)
    come_back(world, ready)
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
    hosts = world.add_host(slots=20), world.add_host(slots=9)
    for host in hosts:
        world.engines.special[host.id] = EngineInMemory()
    return hosts


def run_on(world: World, host: Host, user: Principal = VISITOR) -> Session:
    """A READY session on this host, in a cold sandbox."""
    session = world.create_session(user)
    with only(world, host):
        come_back(world, session)
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
    with only(world, bad):
        warm = world.add_warm_sandbox()
    assert warm.host_id == bad.id
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
    with only(world, good):
        for _ in range(good.starts.at_once + STARTS_IN_LINE):
            newcomer = world.create_session(visitor())
            world.converge(newcomer)
            assert world.host_of(newcomer).id == good.id
    lose_containers(world, bad)
    world.converge(ready)
    assert world.state(ready) is SessionState.QUEUED


def test_an_agent_that_never_answers_costs_one_attempt(world: World) -> None:
    bad, good = add_hosts(world)
    (newcomer,) = place_newcomers(world, bad, 1)
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


# Hosts that lose the sandboxes of several users


def state_of(world: World, host: Host) -> HostState:
    return world.store.hosts.get(host.id).state


def place_newcomers(world: World, host: Host, users: int) -> list[Session]:
    """Sessions of so many users whose sandboxes run on this host, and whose agents are mute."""
    sessions = [world.create_session(visitor()) for _ in range(users)]
    with only(world, host):
        for session in sessions:
            world.converge(session)
            world.start_placed()
    assert {world.host_of(session).id for session in sessions} == {host.id}
    return sessions


def visitor() -> Principal:
    return Principal(user_id=ids.new_user_id(), tier=Tier.FREE)


def test_a_host_that_loses_apps_of_three_users_is_set_aside_with_the_reason(world: World) -> None:
    bad, good = add_hosts(world)
    for _ in range(3):
        run_on(world, bad, visitor())
    lose_containers(world, bad)
    assert state_of(world, bad) is HostState.SUSPECT
    assert "sandboxes of 3 users died" in world.store.hosts.get(bad.id).reason
    assert state_of(world, good) is HostState.UP


def test_one_user_sets_no_host_aside(world: World) -> None:
    bad, _ = add_hosts(world)
    user = visitor()
    for _ in range(2):
        run_on(world, bad, user)
    run_on(world, bad, visitor())
    lose_containers(world, bad)
    assert state_of(world, bad) is HostState.UP


def test_a_few_of_many_users_set_no_host_aside(world: World) -> None:
    bad, _ = add_hosts(world)
    sessions = [run_on(world, bad, visitor()) for _ in range(13)]
    engine = world.engines.special[bad.id]
    assert isinstance(engine, EngineInMemory)
    for session in sessions[:3]:
        engine.crash(world.sandbox_of(session).id)
    world.reconcile(bad)
    assert len(world.store.hosts.get(bad.id).losses.owners) == 3
    assert state_of(world, bad) is HostState.UP
    engine.crash(world.sandbox_of(sessions[3]).id)
    world.reconcile(bad)
    assert state_of(world, bad) is HostState.SUSPECT, "four are over a quarter of thirteen"


def test_a_host_whose_warm_sandboxes_die_is_set_aside(world: World) -> None:
    bad, _ = add_hosts(world)
    with only(world, bad):
        for _ in range(3):
            assert world.add_warm_sandbox().host_id == bad.id
    lose_containers(world, bad)
    assert state_of(world, bad) is HostState.SUSPECT


def test_a_host_whose_agents_never_answer_newcomers_is_set_aside(world: World) -> None:
    bad, good = add_hosts(world)
    sessions = place_newcomers(world, bad, 3)
    world.clock.advance(31)
    for session in sessions:
        world.converge(session)
    assert state_of(world, bad) is HostState.SUSPECT
    assert state_of(world, good) is HostState.UP


def test_mute_agents_set_no_host_aside_while_nobody_is_heard_anywhere(world: World) -> None:
    bad, good = add_hosts(world)
    with only(world, good):
        for _ in range(3):
            world.add_warm_sandbox()
    world.clock.advance(20)
    sessions = [world.create_session(visitor()) for _ in range(3)]
    for session in sessions:
        world.save(session, crashes=(world.clock.now(),) * 3)  # so that they get cold sandboxes
    with only(world, bad):
        for session in sessions:
            world.converge(session)
            world.start_placed()
    world.clock.advance(31)
    for session in sessions:
        world.converge(session)
    assert len(world.store.hosts.get(bad.id).losses.owners) == 3
    assert state_of(world, bad) is HostState.UP


def test_the_last_host_is_never_set_aside(world: World) -> None:
    bad, good = add_hosts(world)
    for _ in range(4):
        run_on(world, bad, visitor())
    world.store.hosts.change(good.id, lambda host: replace(host, cordoned=True))
    lose_containers(world, bad)
    assert state_of(world, bad) is HostState.UP


def test_a_restart_of_its_engine_sets_no_host_aside(world: World) -> None:
    host, _ = add_hosts(world)
    for _ in range(4):
        run_on(world, host, visitor())
    world.clock.advance(5)
    now = world.clock.now()
    world.store.hosts.change(host.id, lambda host: replace(host, state_since=now))
    lose_containers(world, host)
    assert state_of(world, host) is HostState.UP
    assert world.store.hosts.get(host.id).losses.owners == {}


def test_a_host_is_set_aside_for_ever_longer() -> None:
    losses_so_far, now = Losses(), NOW
    pauses = []
    for _ in range(8):
        losses_so_far = losses_so_far.set_aside(now)
        assert losses_so_far.until is not None
        pauses.append((losses_so_far.until - now).total_seconds())
        assert losses_so_far.hold(now)
        now = losses_so_far.until
        assert not losses_so_far.hold(now)
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]
    forgiven = losses_so_far.set_aside(now + timedelta(minutes=10))
    assert forgiven.in_a_row == 1


def test_losses_of_more_than_five_minutes_ago_are_forgotten() -> None:
    owners = [f"usr_{number}" for number in range(3)]
    old = Losses().with_loss(owners[0], NOW).with_loss(owners[1], later(10))
    assert list(old.with_loss(owners[2], later(300)).owners) == owners[1:]
