"""The daemon's loops, pass by pass."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import Wanted
from orchestrator.loops.engine_calls import EngineCalls
from orchestrator.loops.passes import Launcher
from orchestrator.ports import AuditEntry
from orchestrator.services.agents import inbox
from orchestrator.services.deps import Policy
from orchestrator.services.pool import claims
from orchestrator.services.sessions import requests
from tests.fakes import samples
from tests.fakes.engine import EngineInMemory, EngineThatRefuses
from tests.fakes.fleet import REACHABLE
from tests.fakes.threads import run_at_once
from tests.unit.loops.running import loop_specs, run_pass
from tests.unit.services.world import OPERATOR, VISITOR, World, bundle_of


def make_launcher(world: World) -> Launcher:
    """A launcher whose starts have ended when a pass returns."""
    return Launcher(world.deps, EngineCalls(world.deps, run_at_once))


def test_the_publisher_is_the_last_to_stop_and_refill_the_first(world: World) -> None:
    names = [spec.name for spec in loop_specs(world)]
    assert (names[0], names[-1]) == ("refill", "publish")
    assert len(names) == len(set(names))


# Refill


def test_a_refill_pass_launches_the_missing_sandboxes_and_then_rests(world: World) -> None:
    world.add_host(slots=9)
    launcher = make_launcher(world)
    assert launcher.refill() == "starts=3 retired=0"
    assert len(world.engine.containers_by_sandbox) == 3
    assert launcher.refill() == ""


def test_a_refill_pass_retires_before_it_starts(world: World) -> None:
    world.add_host(slots=9)
    world.add_warm_sandbox()
    world.policy = Policy(warm_target=0)
    launcher = make_launcher(world)
    assert launcher.refill() == "starts=0 retired=1"
    assert launcher.refill() == ""


def test_launches_that_fail_back_off(world: World) -> None:
    world.add_host(slots=90)
    world.engine = engine = EngineThatRefuses(times=2)
    world.policy = Policy(warm_target=1)
    launcher = make_launcher(world)

    for pause_s in (1.0, 2.0):
        assert launcher.refill() == "starts=1 retired=0"
        world.clock.advance(pause_s - 0.1)
        assert launcher.refill() == ""
        world.clock.advance(0.2)
    assert launcher.refill() == "starts=1 retired=0"
    assert len(engine.containers_by_sandbox) == 1
    assert len(world.sandboxes(SandboxState.BROKEN)) == 2


def test_a_launch_that_works_ends_the_backoff(world: World) -> None:
    world.add_host(slots=90)
    world.engine = EngineThatRefuses(times=1)
    world.policy = Policy(warm_target=2)
    launcher = make_launcher(world)
    launcher.refill()  # the first fails, the second works
    assert launcher.refill() == "starts=1 retired=0"


def test_launches_back_off_on_the_host_that_refuses_them_alone(world: World) -> None:
    refusing = world.add_host(slots=90)
    world.engines.special[refusing.id] = EngineThatRefuses()
    launcher = make_launcher(world)
    assert launcher.refill() == "starts=3 retired=0"
    world.add_host(slots=90, publish_address="10.0.0.2")
    assert launcher.refill() == "starts=3 retired=0"
    assert len(world.engine.containers_by_sandbox) == 3


def test_a_bug_in_a_launch_is_survived(world: World) -> None:
    class EngineWithABug(EngineInMemory):
        def start(self, *_: Any, **__: Any) -> str:
            raise ZeroDivisionError

    world.add_host(slots=9)
    world.engine = EngineWithABug()
    assert make_launcher(world).refill() == "starts=3 retired=0"


def test_the_start_loop_starts_what_sessions_have_placed(world: World) -> None:
    world.add_host()
    session = world.create_session()
    world.converge(session)
    assert run_pass(world, "start") == "begun=1"
    assert world.sandbox_of(session).container_id is not None
    assert run_pass(world, "start") == ""


def test_the_start_loop_goes_on_where_an_earlier_daemon_died(world: World) -> None:
    """It had created the containers of a session and of the warm pool, and started neither."""
    world.add_host()
    session = world.create_session()
    world.converge(session)
    spare = world.store.sandboxes.place(samples.new_sandbox(), world.clock.now())
    for sandbox in (world.sandbox_of(session), spare):
        world.engine.add(sandbox.id, running=False)
    assert run_pass(world, "start") == "begun=2"
    for sandbox in (world.sandbox_of(session), spare):
        assert world.sandbox(sandbox.id).container_id is not None
        assert world.engine.containers_by_sandbox[sandbox.id].running


# Reap


def test_the_reaper_ends_expired_sessions_and_leaves_docker_alone(world: World) -> None:
    world.add_host()
    ready = world.run_session(world.create_session(ttl_s=600))
    other = world.create_session(ttl_s=6000)
    world.clock.advance(601)
    world.queue.nudges.clear()
    world.events.sent.clear()
    assert run_pass(world, "reap") == "expired=1"
    assert world.session(ready).wanted is Wanted.GONE
    assert world.session(other).wanted is Wanted.RUNNING
    assert world.queue.nudged == [ready.id]
    assert world.events.sent == [f"session:{ready.id}"]
    assert world.engine.removed == []
    assert run_pass(world, "reap") == ""


def test_the_reaper_spares_a_session_that_was_extended(world: World) -> None:
    session = world.create_session(ttl_s=600)
    world.clock.advance(601)
    requests.extend(world.deps, VISITOR, session.id, 600)
    assert run_pass(world, "reap") == ""


# Nudge, reconcile, clear, prune


def test_the_nudge_pass_nudges_due_sessions(world: World) -> None:
    assert run_pass(world, "nudge") == ""
    world.create_session()
    assert run_pass(world, "nudge") == "", "there is no room for it"
    world.add_host()
    assert run_pass(world, "nudge") == "nudged=1"


def test_a_broken_sandbox_without_a_session_is_cleared_step_by_step(world: World) -> None:
    world.add_host()
    sandbox = world.add_warm_sandbox()
    world.engine.crash(sandbox.id)
    world.reconcile(world.store.hosts.get(sandbox.host_id))
    assert run_pass(world, "clear") == "leftovers=1"
    assert run_pass(world, "clear") == "", "its withdrawal isn't confirmed"
    assert run_pass(world, "publish")
    assert run_pass(world, "clear") == "leftovers=1"
    assert world.sandboxes() == []


def reconcile_for(world: World, seconds: int, silent: Collection[Sandbox] = ()) -> list[str]:
    """Let time pass in steps of 5 s. All agents but the silent ones call home at each step.
    Returns the summaries of the reconcile passes that had something to tell."""
    spec = {spec.name: spec for spec in loop_specs(world)}["reconcile"]
    silent_ids = {sandbox.id for sandbox in silent}
    summaries = []
    for _ in range(0, seconds, 5):
        world.clock.advance(5)
        for sandbox in world.sandboxes(SandboxState.WARM, SandboxState.CLAIMED):
            if sandbox.id not in silent_ids:
                inbox.visit(world.deps, sandbox.id, "")
        world.fleet.changed.update(host.id for host in world.store.hosts.list())
        summaries.append(spec.run())
    return list(filter(None, summaries))


def add_two_hosts(world: World, *slots: int) -> list[Host]:
    """Hosts with an engine and an address each."""
    hosts = [
        world.add_host(slots=count, publish_address=f"10.0.0.{count + number}")
        for number, count in enumerate(slots)
    ]
    for host in hosts:
        world.engines.special[host.id] = EngineInMemory()
    return hosts


def test_agents_get_time_to_call_after_our_own_start(world: World) -> None:
    host = world.add_host()
    sandbox = world.add_warm_sandbox()
    world.clock.advance(3600)  # we were down, and no agent could call
    assert reconcile_for(world, 75, [sandbox]) == []
    assert reconcile_for(world, 10, [sandbox]) == []  # a daemon that starts looks afresh
    assert reconcile_for(world, 85, [sandbox]) == [f"{host.name}: orphans=0 broken=1"]
    assert world.sandbox(sandbox.id).reason == "its agent stopped polling"


def test_no_silence_counts_while_the_listener_does_not_answer(world: World) -> None:
    world.add_host()
    sandbox = world.add_warm_sandbox()
    world.listener.running = None
    assert reconcile_for(world, 600, [sandbox]) == []


def test_one_silent_agent_of_eight_has_failed(world: World) -> None:
    host = world.add_host(slots=9)
    sandboxes = [world.add_warm_sandbox() for _ in range(8)]
    assert reconcile_for(world, 85, sandboxes[:1]) == [f"{host.name}: orphans=0 broken=1"]
    assert world.sandbox(sandboxes[0].id).state is SandboxState.BROKEN


@pytest.mark.parametrize(("silent", "agents"), [(4, 4), (8, 8), (3, 8)])
def test_nothing_is_destroyed_while_many_agents_are_silent_together(
    world: World, silent: int, agents: int
) -> None:
    world.add_host(slots=9)
    sandboxes = [world.add_warm_sandbox() for _ in range(agents)]
    assert reconcile_for(world, 600, sandboxes[:silent]) == []
    assert len(world.sandboxes(SandboxState.WARM)) == agents


def test_the_silent_agents_of_one_user_count_once(world: World) -> None:
    """A user may silence them on purpose. That must not keep others from being repaired."""
    host = world.add_host(slots=9)
    for _ in range(8):
        world.add_warm_sandbox()
    for _ in range(4):
        world.converge(world.create_session(OPERATOR))
    theirs = world.sandboxes(SandboxState.CLAIMED)
    assert len(theirs) == 4
    warm = world.sandboxes(SandboxState.WARM)[0]
    assert reconcile_for(world, 85, [*theirs, warm]) == [f"{host.name}: orphans=0 broken=5"]


def test_agents_that_come_back_one_by_one_after_a_common_silence_get_time(world: World) -> None:
    world.add_host(slots=9)
    sandboxes = [world.add_warm_sandbox() for _ in range(8)]
    assert reconcile_for(world, 300, sandboxes) == []
    assert reconcile_for(world, 40, sandboxes[:1]) == []
    assert reconcile_for(world, 100) == []
    assert len(world.sandboxes(SandboxState.WARM)) == 8


def test_the_one_that_stays_silent_after_a_common_silence_has_failed(world: World) -> None:
    host = world.add_host(slots=9)
    sandboxes = [world.add_warm_sandbox() for _ in range(8)]
    assert reconcile_for(world, 300, sandboxes) == []
    assert reconcile_for(world, 100, sandboxes[:1]) == [f"{host.name}: orphans=0 broken=1"]


def test_a_common_silence_of_one_host_spares_that_host_alone(world: World) -> None:
    """Its link may carry Docker's answers and not the agents' calls."""
    quiet, other = add_two_hosts(world, 4, 20)
    sandboxes = [world.add_warm_sandbox() for _ in range(24)]
    on_quiet = [sandbox for sandbox in sandboxes if sandbox.host_id == quiet.id]
    alone = next(sandbox for sandbox in sandboxes if sandbox.host_id == other.id)
    assert reconcile_for(world, 120, [*on_quiet, alone]) == [f"{other.name}: orphans=0 broken=1"]
    assert world.sandbox(alone.id).state is SandboxState.BROKEN


def test_agents_of_hosts_that_are_away_do_not_count(world: World) -> None:
    away, host = add_two_hosts(world, 9, 9)
    sandboxes = [world.add_warm_sandbox() for _ in range(18)]
    on_host = [sandbox for sandbox in sandboxes if sandbox.host_id == host.id]
    on_away = [sandbox for sandbox in sandboxes if sandbox.host_id == away.id]
    claims.mark_suspect(world.deps, away.id, "no answer")
    world.fleet.link_states[away.id] = replace(REACHABLE, up=False)
    assert reconcile_for(world, 85, [*on_away, on_host[0]]) == [f"{host.name}: orphans=0 broken=1"]


def test_bundles_and_records_go_when_their_time_is_up(world: World) -> None:
    world.add_host()
    session = world.create_session(prompt="a tide calendar for Brest", template=None)
    world.add_warm_sandbox()
    world.converge(session)
    world.upload_bundle(session, bundle_of())
    digest = world.store.bundles.list(session.id)[0].sha256
    world.request_end(session)
    world.settle(session, rounds=3)
    assert run_pass(world, "prune") == ""
    assert world.bundles.get(digest)

    world.clock.advance(timedelta(days=7, seconds=1).total_seconds())
    assert run_pass(world, "prune") == "versions=1 bundles=1"
    with pytest.raises(errors.NotFound):
        world.bundles.get(digest)
    world.clock.advance(timedelta(days=23, seconds=1).total_seconds())
    assert run_pass(world, "prune") == "sessions=1"
    with pytest.raises(errors.NotFound):
        world.session(session)


def test_a_user_keeps_only_so_many_ended_sessions(world: World) -> None:
    world.policy = replace(world.policy, ended_per_user=1)
    older, newer = (world.create_session() for _ in range(2))
    for session in (older, newer):
        world.request_end(session)
        world.settle(session, rounds=3)
    assert run_pass(world, "prune") == "", "somebody may just be looking at it"
    world.clock.advance(601)
    assert run_pass(world, "prune") == "sessions=1"
    with pytest.raises(errors.NotFound):
        world.session(older)


def test_the_audit_log_goes_when_its_time_is_up(world: World) -> None:
    entry = AuditEntry(at=world.clock.now(), actor="usr", action="session_killed", subject="ses")
    world.store.audit.add(entry)
    world.clock.advance(timedelta(days=90).total_seconds())
    assert run_pass(world, "prune") == ""
    world.clock.advance(1)
    assert run_pass(world, "prune") == "audit=1"
    assert world.store.audit.list() == []
