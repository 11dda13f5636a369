"""The daemon's loops, pass by pass."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import Wanted
from orchestrator.loops import passes
from orchestrator.loops.bulkhead import Bulkhead
from orchestrator.loops.host_passes import HostPasses, Reconciler
from orchestrator.loops.loop import LoopSpec
from orchestrator.loops.passes import Launcher, Publisher
from orchestrator.ports import AuditEntry
from orchestrator.services.agents import presence
from orchestrator.services.deps import Policy
from orchestrator.services.pool import claims
from orchestrator.services.sessions import requests
from tests.fakes import samples
from tests.fakes.engine import EngineInMemory, EngineThatRefuses
from tests.fakes.fleet import ImagePushesInMemory
from tests.fakes.proxy import ProxyThatRejects
from tests.fakes.threads import ImmediateExecutor
from tests.unit.services.world import VISITOR, World, bundle_of


def loop_specs(world: World) -> Sequence[LoopSpec]:
    deps, threads = world.deps, ImmediateExecutor()
    hosts = HostPasses(deps, world.fleet, ImagePushesInMemory(), threads=threads)
    reconciler = Reconciler(deps, world.fleet, threads)
    return passes.loop_specs(
        deps, world.proxy, hosts, reconciler, warn=lambda _: None, spawn=lambda call: call()
    )


def make_launcher(world: World) -> Launcher:
    """A launcher whose starts have ended when a pass returns."""
    calls = Bulkhead(world.clock, per_host=3, spawn=lambda call: call())
    return Launcher(world.deps, calls)


def run_pass(world: World, name: str) -> str:
    (spec,) = [spec for spec in loop_specs(world) if spec.name == name]
    return spec.run()


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


def test_a_bug_in_a_launch_is_survived(world: World) -> None:
    class EngineWithABug(EngineInMemory):
        def start(self, *_: Any, **__: Any) -> str:
            raise ZeroDivisionError

    world.add_host(slots=9)
    world.engine = EngineWithABug()
    assert make_launcher(world).refill() == "starts=3 retired=0"


def test_a_refill_gives_way_to_a_burst_but_not_for_ever(world: World) -> None:
    world.add_host(slots=9)
    world.add_warm_sandbox()
    world.converge(world.create_session())
    launcher = make_launcher(world)
    assert launcher.refill() == ""
    world.clock.advance(1.9)
    assert launcher.refill() == ""
    world.clock.advance(0.2)
    assert launcher.refill() == "starts=3 retired=0"


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


# Publish


def test_the_publisher_publishes_at_start_even_if_nothing_changed(world: World) -> None:
    world.publish()  # an earlier daemon did
    publisher = Publisher(world.deps, world.proxy)
    assert publisher.publish() == ""
    assert len(world.proxy.tables) == 2
    assert publisher.publish() == ""
    assert len(world.proxy.tables) == 2


def test_the_publisher_publishes_routes_that_changed(world: World) -> None:
    publisher = Publisher(world.deps, world.proxy)
    publisher.publish()
    world.add_host()
    sandbox = world.store.sandboxes.place(samples.new_sandbox(), world.clock.now())
    assert publisher.publish() == "routes=1 changed=1"
    claims.retire(world.deps, world.sandbox(sandbox.id), "a test said so")
    assert publisher.publish() == "routes=0 changed=1"


def test_a_proxy_that_forgot_its_table_gets_it_again(world: World) -> None:
    world.add_host()
    sandbox = world.add_warm_sandbox()
    publisher = Publisher(world.deps, world.proxy)
    publisher.publish()
    world.proxy.forget()
    publisher.publish()
    assert world.proxy.slugs == {sandbox.slug}


def test_a_first_publication_that_is_rejected_is_tried_again(world: World) -> None:
    world.add_host()
    world.add_warm_sandbox()
    rejecting = ProxyThatRejects()
    publisher = Publisher(world.deps, rejecting)
    for _ in range(2):
        with pytest.raises(errors.ProxyRejected):
            publisher.publish()


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


def test_agents_get_time_to_call_after_our_own_start(world: World) -> None:
    host = world.add_host()
    sandbox = world.add_warm_sandbox()
    world.clock.advance(3600)  # we were down, and no agent could call
    specs = {spec.name: spec for spec in loop_specs(world)}

    def reconcile() -> str:
        world.fleet.changed.add(host.id)
        return specs["reconcile"].run()

    world.clock.advance(76)  # spawn-api isn't up yet: no agent can be heard
    assert reconcile() == ""
    presence.renew_presence(world.deps, "spawn-api")
    assert reconcile() == ""
    for _ in range(9):  # it goes on listening
        world.clock.advance(9)
        presence.renew_presence(world.deps, "spawn-api")
    assert reconcile() == f"{host.name}: orphans=0 broken=1"
    assert world.sandbox(sandbox.id).reason == "its agent stopped polling"


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


def test_the_audit_log_goes_when_its_time_is_up(world: World) -> None:
    entry = AuditEntry(at=world.clock.now(), actor="usr", action="session_killed", subject="ses")
    world.store.audit.add(entry)
    world.clock.advance(timedelta(days=90).total_seconds())
    assert run_pass(world, "prune") == ""
    world.clock.advance(1)
    assert run_pass(world, "prune") == "audit=1"
    assert world.store.audit.list() == []
