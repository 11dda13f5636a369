"""The pool: filled up, probed, compared with what Docker says, and emptied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.host import Host, HostState
from orchestrator.domain.sandbox import Sandbox, SandboxState
from orchestrator.domain.session import SessionState
from orchestrator.services import agents, claims, pool
from orchestrator.services.deps import Policy
from tests.fakes import samples
from tests.fakes.engine import (
    EngineInMemory,
    EngineThatIsDown,
    EngineThatLooksAway,
    EngineThatRefuses,
)
from tests.fakes.samples import NOW
from tests.unit.services.world import RaceToWrite, World


def refill(world: World) -> list[Sandbox]:
    """One pass whose launches end before it does; what it started."""
    started: list[Sandbox] = []

    def launch(box: Sandbox) -> None:
        pool.launch(world.deps, box)
        started.append(box)

    pool.refill(world.deps, launch)
    return started


def reconcile(world: World, host: Host) -> pool.Treated:
    return pool.reconcile(world.deps, host, NOW)


# Refill


def test_the_pool_fills_up_to_its_target_and_stays_there(world: World) -> None:
    world.host(slots=9)
    started = refill(world)
    assert len(started) == 3
    assert refill(world) == [], "those in flight count"
    world.publish()
    for box in started:
        agents.visit(world.deps, box.id, "")
    assert len(world.boxes(SandboxState.WARM)) == 3
    assert refill(world) == []


def test_a_claimed_sandbox_is_replaced(world: World) -> None:
    world.host(slots=9)
    for _ in range(3):
        world.warm()
    session = world.ask()
    world.converge(session)
    world.save(session, state=SessionState.READY)
    assert len(refill(world)) == 1


def test_a_refill_gives_way_to_sessions_that_are_about_to_be_ready(world: World) -> None:
    world.host(slots=9)
    world.warm()
    world.converge(world.ask())
    assert refill(world) == []
    assert pool.refill(world.deps, lambda box: None, postponed_s=2.0).starts == 3


def test_a_waiting_session_comes_before_the_pool(world: World) -> None:
    world.ask()
    world.host()
    assert refill(world) == []


def test_a_pool_without_room_says_so(world: World) -> None:
    world.host(slots=2)
    started: list[Sandbox] = []
    decision = pool.refill(world.deps, started.append)
    assert (decision.starts, len(started)) == (2, 2)
    assert pool.refill(world.deps, started.append).reason == "no free slot"


def test_a_refill_that_finds_the_room_taken_stops(world: World) -> None:
    host = world.host(slots=3)

    def launch_while_others_come(box: Sandbox) -> None:
        world.store.hosts.put(replace(host, cordoned=True))

    decision = pool.refill(world.deps, launch_while_others_come)
    assert "no host has a free slot" in decision.reason
    assert len(world.boxes()) == 1


def test_outdated_warm_sandboxes_are_let_go(world: World) -> None:
    world.host()
    old = [world.warm(), world.warm()]
    world.image = "spawnai/sandbox:next"
    new = world.warm()
    assert pool.retire_outdated(world.deps) == 2
    assert {world.box(box.id).state for box in old} == {SandboxState.STOPPING}
    assert world.box(new.id).state is SandboxState.WARM
    assert pool.retire_outdated(world.deps) == 0


def test_surplus_warm_sandboxes_are_let_go_oldest_first(world: World) -> None:
    world.host()
    boxes = []
    for _ in range(4):
        world.clock.advance(1)
        boxes.append(world.warm())
    world.policy = Policy(warm_target=2)
    assert pool.retire_surplus(world.deps) == 2
    assert [box.id for box in world.boxes(SandboxState.WARM)] == [box.id for box in boxes[2:]]
    assert pool.retire_surplus(world.deps) == 0


# A launch that fails


@pytest.mark.parametrize(
    ("engine", "error", "state"),
    [
        (EngineThatRefuses("image_missing"), errors.SandboxRefused, HostState.UP),
        (EngineThatIsDown(), errors.EngineUnavailable, HostState.SUSPECT),
    ],
    ids=["refused", "down"],
)
def test_a_launch_that_fails_leaves_a_broken_sandbox_and_raises(
    world: World, engine: EngineInMemory, error: type[Exception], state: HostState
) -> None:
    host = world.host()
    world.engine = engine
    with pytest.raises(error):
        refill(world)
    broken = world.boxes(SandboxState.BROKEN)
    assert len(broken) == 1
    assert broken[0].reason
    assert world.store.hosts.get(host.id).state is state


def test_a_broken_warm_sandbox_goes_step_by_step_until_its_slot_is_free(world: World) -> None:
    host = world.host()
    world.engine = EngineThatRefuses(times=1)
    with pytest.raises(errors.SandboxRefused):
        refill(world)
    (broken,) = world.boxes()
    assert reconcile(world, host) == pool.Treated(leftovers=1)
    assert world.box(broken.id).state is SandboxState.STOPPING
    reconcile(world, host)
    assert world.box(broken.id).state is SandboxState.STOPPING, "its withdrawal isn't confirmed"
    assert world.engine.removed == []
    world.publish()
    reconcile(world, host)
    assert world.box(broken.id).state is SandboxState.GONE
    assert world.engine.removed == [broken.id]
    assert world.store.hosts.loads()[0].used == 0
    assert reconcile(world, host) == pool.Treated()


def test_a_launch_that_was_overtaken_by_a_diagnosis_raises_a_lost_race(world: World) -> None:
    world.host()
    world.engine = EngineThatRefuses()
    box = world.store.sandboxes.place(samples.new_sandbox(), NOW)
    claims.retire(world.deps, box, "it took too long")
    with pytest.raises(errors.StaleWrite):
        pool.launch(world.deps, box)
    assert world.box(box.id).reason == "it took too long"


# Reconcile


def test_an_orphan_is_removed(world: World) -> None:
    host = world.host()
    stray = ids.new_sandbox_id()
    world.engine.add(stray)
    assert reconcile(world, host) == pool.Treated(orphans=1)
    assert world.engine.found == {}


def test_a_container_that_outlived_its_sandbox_is_an_orphan(world: World) -> None:
    host = world.host()
    box = world.warm()
    claims.retire(world.deps, box, "a test said so")
    world.publish()
    claims.remove(world.deps, world.box(box.id))
    world.engine.add(box.id)
    assert reconcile(world, host) == pool.Treated(orphans=1)


def test_a_sandbox_on_one_host_is_not_looked_for_on_another(world: World) -> None:
    first = world.host()
    world.warm()
    other = world.host(cordoned=True)
    world.engines.special[other.id] = EngineInMemory()
    assert reconcile(world, other) == pool.Treated()
    assert reconcile(world, first) == pool.Treated()


def test_a_vanished_sandbox_is_broken_and_its_session_looked_at(world: World) -> None:
    host = world.host()
    ready = world.run(world.ask())
    box = world.sandbox_of(ready)
    world.engine.found.clear()
    world.queue.nudges.clear()
    assert reconcile(world, host) == pool.Treated(broken=1)
    assert world.box(box.id).reason == "its container is gone"
    assert world.session(ready).due_at <= world.clock.now()
    assert world.queue.nudged == [ready.id]


def test_a_broken_sandbox_of_a_session_is_left_to_the_session(world: World) -> None:
    host = world.host()
    ready = world.run(world.ask())
    world.engine.crash(world.sandbox_of(ready).id)
    reconcile(world, host)
    assert reconcile(world, host) == pool.Treated()
    assert world.sandbox_of(ready).state is SandboxState.BROKEN


def test_a_session_that_was_not_told_of_its_broken_sandbox_is_told_at_the_next_pass(
    world: World,
) -> None:
    host = world.host()
    ready = world.run(world.ask())
    world.engine.crash(world.sandbox_of(ready).id)
    sound, world.store = world.store, RaceToWrite(world.store)
    reconcile(world, host)
    assert world.sandbox_of(ready).state is SandboxState.BROKEN
    assert world.session(ready).due_at == ready.expires_at, "the race was not lost"

    world.store = sound
    world.queue.nudges.clear()
    reconcile(world, host)
    assert world.session(ready).due_at <= world.clock.now()
    assert world.queue.nudged == [ready.id]


def test_a_sandbox_that_came_up_while_docker_was_asked_is_not_broken(world: World) -> None:
    """Its container is in no list yet, but it is written down by the time the store is read."""
    host = world.host()
    box = world.store.sandboxes.place(samples.new_sandbox(), NOW)
    world.engine = EngineThatLooksAway(lambda: claims.start(world.deps, box, replace_stale=False))
    assert reconcile(world, host) == pool.Treated()
    assert world.box(box.id).state is SandboxState.CREATING
    assert world.box(box.id).container_id is not None


def test_what_moved_since_it_was_looked_at_is_left_for_the_next_pass(world: World) -> None:
    """The first orphan's removal takes so long that the vanished sandbox is retired meanwhile."""
    host = world.host()
    box = world.warm()

    class EngineThatIsOvertaken(EngineInMemory):
        def remove(self, sandbox_id: ids.SandboxId) -> None:
            super().remove(sandbox_id)
            claims.retire(world.deps, box, "made from an older runtime image")

    world.engine = EngineThatIsOvertaken()
    world.engine.add(ids.new_sandbox_id())
    assert reconcile(world, host) == pool.Treated(orphans=1)
    assert world.box(box.id).reason == "made from an older runtime image"


def test_an_engine_that_is_down_breaks_nothing(world: World) -> None:
    host = world.host()
    ready = world.run(world.ask())
    world.engine = EngineThatIsDown()
    with pytest.raises(errors.EngineUnavailable):
        reconcile(world, host)
    assert world.sandbox_of(ready).state is SandboxState.CLAIMED


def test_emptying_the_pool_removes_all_containers_and_keeps_the_sessions(world: World) -> None:
    world.host()
    ready = world.run(world.ask())
    world.engine.add(ids.new_sandbox_id())
    assert pool.empty(world.deps) == 2
    assert world.engine.found == {}
    assert world.engine.dismantled
    assert world.state(ready) is SessionState.READY


# Probe


@pytest.mark.parametrize(
    ("before", "answers", "image", "after"),
    [
        (HostState.JOINING, True, True, HostState.UP),
        (HostState.JOINING, True, False, HostState.SUSPECT),
        (HostState.JOINING, False, True, HostState.SUSPECT),
        (HostState.UP, True, True, HostState.UP),
        (HostState.UP, True, False, HostState.SUSPECT),
        (HostState.UP, False, True, HostState.SUSPECT),
        (HostState.SUSPECT, True, True, HostState.UP),
        (HostState.SUSPECT, False, True, HostState.SUSPECT),
        (HostState.LOST, True, True, HostState.UP),
        (HostState.LOST, False, True, HostState.LOST),
    ],
)
def test_a_probe_says_what_a_host_is(
    world: World, before: HostState, answers: bool, image: bool, after: HostState
) -> None:
    host = world.host(state=before, seen_at=samples.later(-5))
    world.engine = engine = EngineThatIsDown()
    engine.down = not answers
    engine.images = {samples.IMAGE} if image else set()
    assert pool.probe(world.deps, host).state is after
    stored = world.store.hosts.get(host.id)
    assert stored.state is after
    assert bool(stored.reason) == (after is not HostState.UP)
    if not answers:
        assert stored.seen_at == samples.later(-5)
    assert ("pool" in world.events.sent) == (after is HostState.UP and before is not after)


@pytest.mark.parametrize("before", [HostState.JOINING, HostState.SUSPECT, HostState.UP])
def test_a_host_is_fenced_before_it_takes_placements(world: World, before: HostState) -> None:
    host = world.host(state=before)
    assert pool.probe(world.deps, host).state is HostState.UP
    assert world.engine.prepared == (0 if before is HostState.UP else 1)


def test_a_host_that_cannot_be_fenced_takes_no_placements(world: World) -> None:
    class EngineWithoutNetworks(EngineInMemory):
        def prepare(self) -> Sequence[str]:
            raise errors.EngineUnavailable("the network could not be made")

    host = world.host(state=HostState.JOINING)
    world.engine = EngineWithoutNetworks()
    after = pool.probe(world.deps, host)
    assert (after.state, after.reason) == (HostState.SUSPECT, "the network could not be made")


def test_a_missing_image_is_said_with_the_command_that_makes_it(world: World) -> None:
    host = world.host()
    world.engine.images.clear()
    assert "spawnctl image build" in pool.probe(world.deps, host).reason


def test_a_host_that_is_as_it_was_is_not_written_at_every_probe(world: World) -> None:
    host = world.host()
    world.clock.advance(10)
    pool.probe(world.deps, host)
    assert world.store.hosts.get(host.id).seen_at == NOW
    world.clock.advance(0.1)
    pool.probe(world.deps, host)
    assert world.store.hosts.get(host.id).seen_at == world.clock.now()


def test_a_probe_never_undoes_what_an_operator_did_meanwhile(world: World) -> None:
    host = world.host(state=HostState.JOINING)
    world.store.hosts.put(replace(host, cordoned=True, slots=7))
    pool.probe(world.deps, host)  # with what was read before
    stored = world.store.hosts.get(host.id)
    assert (stored.state, stored.cordoned, stored.slots) == (HostState.UP, True, 7)


# Claims


def test_a_sandbox_whose_route_is_published_is_not_removed(world: World) -> None:
    world.host()
    box = world.warm()
    claims.retire(world.deps, box, "a test said so")
    with pytest.raises(errors.Conflict):
        claims.remove(world.deps, world.box(box.id))
    assert box.id in world.engine.found


def test_only_a_host_that_is_up_becomes_suspect(world: World) -> None:
    up, joining = world.host(), world.host(state=HostState.JOINING)
    for host in (up, joining):
        claims.suspect(world.store, host.id, "no answer")
    assert world.store.hosts.get(up.id).state is HostState.SUSPECT
    assert world.store.hosts.get(up.id).reason == "no answer"
    assert world.store.hosts.get(joining.id).state is HostState.JOINING


def test_warm_sandboxes_and_free_slots_are_what_is_available(world: World) -> None:
    world.host(slots=4)
    world.host(slots=9, cordoned=True)
    assert claims.available(world.store) == 4
    world.warm()
    assert claims.available(world.store) == 4
    world.converge(world.ask())
    assert claims.available(world.store) == 3
