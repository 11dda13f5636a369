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
from orchestrator.loops.host_passes import Hosts, Reconciler
from orchestrator.loops.loop import LoopSpec
from orchestrator.loops.passes import Launcher, Publisher
from orchestrator.services.agents import presence
from orchestrator.services.deps import Policy
from orchestrator.services.pool import claims
from orchestrator.services.sessions import requests
from tests.fakes import samples
from tests.fakes.engine import EngineInMemory, EngineThatRefuses
from tests.fakes.fleet import ImagePushesInMemory
from tests.fakes.proxy import ProxyThatRejects
from tests.fakes.threads import CallersThread
from tests.unit.services.world import VISITOR, World, bundle_of


def all_loops(world: World, said: list[Sequence[str]] | None = None) -> Sequence[LoopSpec]:
    """`said` is given what the fences lack."""
    deps, threads = world.deps, CallersThread()
    hosts = Hosts(deps, world.fleet, ImagePushesInMemory(), threads=threads)
    reconciler = Reconciler(deps, world.fleet, threads)
    said = [] if said is None else said
    return passes.all_loops(deps, world.proxy, hosts, reconciler, said.append)


def one_pass(world: World, name: str) -> str:
    (spec,) = [one for one in all_loops(world) if one.name == name]
    return spec.run()


def test_the_publisher_is_the_last_to_stop_and_refill_the_first(world: World) -> None:
    names = [spec.name for spec in all_loops(world)]
    assert (names[0], names[-1]) == ("refill", "publish")
    assert len(names) == len(set(names))


# Refill


def test_a_refill_pass_launches_what_is_missing_and_then_rests(world: World) -> None:
    world.host(slots=9)
    launcher = Launcher(world.deps, CallersThread())
    assert launcher.refill() == "starts=3 retired=0"
    assert len(world.engine.found) == 3
    assert launcher.refill() == ""


def test_a_refill_pass_retires_before_it_starts(world: World) -> None:
    world.host(slots=9)
    world.warm()
    world.policy = Policy(warm_target=0)
    launcher = Launcher(world.deps, CallersThread())
    assert launcher.refill() == "starts=0 retired=1"
    assert launcher.refill() == ""


def test_launches_that_fail_are_put_off_longer_and_longer(world: World) -> None:
    world.host(slots=90)
    world.engine = engine = EngineThatRefuses(times=2)
    world.policy = Policy(warm_target=1)
    launcher = Launcher(world.deps, CallersThread())

    for pause_s in (1.0, 2.0):
        assert launcher.refill() == "starts=1 retired=0"
        world.clock.advance(pause_s - 0.1)
        assert launcher.refill() == ""
        world.clock.advance(0.2)
    assert launcher.refill() == "starts=1 retired=0"
    assert len(engine.found) == 1
    assert len(world.boxes(SandboxState.BROKEN)) == 2


def test_a_launch_that_works_ends_the_pause(world: World) -> None:
    world.host(slots=90)
    world.engine = EngineThatRefuses(times=1)
    world.policy = Policy(warm_target=2)
    launcher = Launcher(world.deps, CallersThread())
    launcher.refill()  # the first fails, the second works
    assert launcher.refill() == "starts=1 retired=0"


def test_a_bug_in_a_launch_is_survived(world: World) -> None:
    class EngineWithABug(EngineInMemory):
        def start(self, *_: Any, **__: Any) -> str:
            raise ZeroDivisionError

    world.host(slots=9)
    world.engine = EngineWithABug()
    assert Launcher(world.deps, CallersThread()).refill() == "starts=3 retired=0"


def test_a_refill_gives_way_to_a_burst_but_not_for_ever(world: World) -> None:
    world.host(slots=9)
    world.warm()
    world.converge(world.ask())
    launcher = Launcher(world.deps, CallersThread())
    assert launcher.refill() == ""
    world.clock.advance(1.9)
    assert launcher.refill() == ""
    world.clock.advance(0.2)
    assert launcher.refill() == "starts=3 retired=0"


# Publish


def test_the_publisher_publishes_at_start_even_when_nothing_is_new(world: World) -> None:
    world.publish()  # by the daemon before this one
    publisher = Publisher(world.deps, world.proxy)
    assert publisher.publish() == ""
    assert len(world.proxy.tables) == 2
    assert publisher.publish() == ""
    assert len(world.proxy.tables) == 2


def test_the_publisher_publishes_what_is_unsettled(world: World) -> None:
    publisher = Publisher(world.deps, world.proxy)
    publisher.publish()
    world.host()
    box = world.store.sandboxes.place(samples.new_sandbox(), world.clock.now())
    assert publisher.publish() == "routes=1 changed=1"
    claims.retire(world.deps, world.box(box.id), "a test said so")
    assert publisher.publish() == "routes=0 changed=1"


def test_a_proxy_that_forgot_its_table_gets_it_again(world: World) -> None:
    world.host()
    box = world.warm()
    publisher = Publisher(world.deps, world.proxy)
    publisher.publish()
    world.proxy.forget()
    publisher.publish()
    assert world.proxy.slugs == {box.slug}


def test_a_first_publication_that_is_rejected_is_tried_again(world: World) -> None:
    world.host()
    world.warm()
    rejecting = ProxyThatRejects()
    publisher = Publisher(world.deps, rejecting)
    for _ in range(2):
        with pytest.raises(errors.ProxyRejected):
            publisher.publish()


# Reap


def test_the_reaper_ends_what_is_over_and_leaves_docker_alone(world: World) -> None:
    world.host()
    ready = world.run(world.ask(ttl_s=600))
    other = world.ask(ttl_s=6000)
    world.clock.advance(601)
    world.queue.nudges.clear()
    world.events.sent.clear()
    assert one_pass(world, "reap") == "expired=1"
    assert world.session(ready).wanted is Wanted.GONE
    assert world.session(other).wanted is Wanted.RUNNING
    assert world.queue.nudged == [ready.id]
    assert world.events.sent == [f"session:{ready.id}"]
    assert world.engine.removed == []
    assert one_pass(world, "reap") == ""


def test_the_reaper_spares_what_was_extended(world: World) -> None:
    session = world.ask(ttl_s=600)
    world.clock.advance(601)
    requests.extend(world.deps, VISITOR, session.id, 600)
    assert one_pass(world, "reap") == ""


# Nudge, reconcile, clear, prune


def test_what_is_due_is_nudged(world: World) -> None:
    assert one_pass(world, "nudge") == ""
    world.ask()
    assert one_pass(world, "nudge") == "nudged=1"


def test_what_nobody_cares_for_is_cleared_step_by_step(world: World) -> None:
    world.host()
    box = world.warm()
    world.engine.crash(box.id)
    world.reconcile(world.store.hosts.get(box.host_id))
    assert one_pass(world, "clear") == "leftovers=1"
    assert one_pass(world, "clear") == "", "its withdrawal isn't confirmed"
    assert one_pass(world, "publish")
    assert one_pass(world, "clear") == "leftovers=1"
    assert world.boxes() == []


def test_agents_are_given_their_time_after_our_own_start(world: World) -> None:
    host = world.host()
    box = world.warm()
    world.clock.advance(3600)  # we were away, and nobody could call
    specs = {spec.name: spec for spec in all_loops(world)}

    def reconcile() -> str:
        world.fleet.changed.add(host.id)
        return specs["reconcile"].run()

    world.clock.advance(76)  # spawn-api isn't there yet: no silence means anything
    assert reconcile() == ""
    presence.listening(world.deps, "spawn-api")
    assert reconcile() == ""
    for _ in range(9):  # it goes on listening
        world.clock.advance(9)
        presence.listening(world.deps, "spawn-api")
    assert reconcile() == f"{host.name}: orphans=0 broken=1"
    assert world.box(box.id).reason == "its agent fell silent"


def test_bundles_and_records_go_when_their_time_is_up(world: World) -> None:
    world.host()
    session = world.ask(prompt="a tide calendar for Brest", template=None)
    world.warm()
    world.converge(session)
    world.keep(session, bundle_of())
    digest = world.store.bundles.list(session.id)[0].sha256
    world.want_gone(session)
    world.settle(session, rounds=3)
    assert one_pass(world, "prune") == ""
    assert world.bundles.get(digest)

    world.clock.advance(timedelta(days=7, seconds=1).total_seconds())
    assert one_pass(world, "prune") == "bundles=1 sessions=0 calls=0"
    with pytest.raises(errors.NotFound):
        world.bundles.get(digest)
    world.clock.advance(timedelta(days=23, seconds=1).total_seconds())
    assert one_pass(world, "prune") == "bundles=0 sessions=1 calls=0"
    with pytest.raises(errors.NotFound):
        world.session(session)
