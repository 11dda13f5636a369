"""The pool: filled up to its target, and cleared of what is broken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.host import HostState
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import SessionState
from orchestrator.services.agents import inbox
from orchestrator.services.deps import Policy
from orchestrator.services.pool import claims, reconcile
from orchestrator.services.pool import refill as pool
from tests.fakes import samples
from tests.fakes.engine import (
    EngineInMemory,
    EngineThatIsDown,
    EngineThatRefuses,
)
from tests.fakes.samples import NOW
from tests.unit.services.world import World


def refill(world: World) -> list[Sandbox]:
    """One pass whose launches end before it does; what it started."""
    started: list[Sandbox] = []

    def launch(box: Sandbox) -> None:
        pool.launch(world.deps, box)
        started.append(box)

    pool.refill(world.deps, launch)
    return started


# Refill


def test_the_pool_fills_up_to_its_target_and_stays_there(world: World) -> None:
    world.host(slots=9)
    started = refill(world)
    assert len(started) == 3
    assert refill(world) == [], "those in flight count"
    world.publish()
    for box in started:
        inbox.visit(world.deps, box.id, "")
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
    world.host(slots=4)
    started: list[Sandbox] = []
    decision = pool.refill(world.deps, started.append)
    assert (decision.starts, len(started)) == (2, 2), "two slots are left to sessions"
    assert pool.refill(world.deps, started.append).reason == "no free slot beside the reserve"


def test_a_refill_that_finds_the_room_taken_stops(world: World) -> None:
    host = world.host(slots=5)

    def launch_while_others_come(box: Sandbox) -> None:
        world.store.hosts.put(replace(host, cordoned=True))

    decision = pool.refill(world.deps, launch_while_others_come)
    assert "no host has a free slot" in decision.reason
    assert len(world.boxes()) == 1


def test_an_outdated_warm_sandbox_goes_when_a_new_one_has_come(world: World) -> None:
    world.host(slots=9)
    world.policy = Policy(warm_target=2)
    old = [world.warm()]
    world.clock.advance(1)
    old.append(world.warm())
    world.roll("spawnai/sandbox:next")
    assert pool.retire_surplus(world.deps) == 0, "until then the old ones serve"
    new = world.warm()
    assert pool.retire_surplus(world.deps) == 1
    assert [world.box(box.id).state for box in (*old, new)] == [
        SandboxState.STOPPING,
        SandboxState.WARM,
        SandboxState.WARM,
    ]
    assert world.box(old[0].id).reason == "made from an older runtime image"
    world.warm()
    assert pool.retire_surplus(world.deps) == 1
    assert pool.retire_surplus(world.deps) == 0
    assert {box.image for box in world.boxes(SandboxState.WARM)} == {world.image}


def test_without_room_for_a_new_one_the_outdated_go_one_at_a_time(world: World) -> None:
    world.host(slots=4)
    world.policy = Policy(warm_target=2)
    world.warm()
    world.warm()
    world.roll("spawnai/sandbox:next")
    assert pool.refill(world.deps, lambda box: None).reason == "no free slot beside the reserve"
    assert pool.retire_surplus(world.deps) == 1
    assert pool.retire_surplus(world.deps) == 1, "its slot isn't free before it is gone"


def test_a_claimed_sandbox_of_an_older_image_is_never_replaced(world: World) -> None:
    world.host(slots=9)
    world.policy = Policy(warm_target=0)
    ready = world.run(world.ask())
    world.roll("spawnai/sandbox:next")
    assert pool.retire_surplus(world.deps) == 0
    assert world.sandbox_of(ready).state is SandboxState.CLAIMED


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


def test_what_nobody_could_claim_is_not_let_go_in_the_place_of_what_is_too_much(
    world: World,
) -> None:
    """A host that is cordoned, or away for a moment, keeps what it has."""
    closed = world.host(slots=9)
    kept = world.warm()
    world.store.hosts.change(closed.id, lambda host: replace(host, cordoned=True))
    world.host(slots=9, publish_address="10.0.0.2")
    world.clock.advance(1)
    boxes = [world.warm() for _ in range(2)]
    world.policy = Policy(warm_target=1)
    assert pool.retire_surplus(world.deps) == 1
    assert pool.retire_surplus(world.deps) == 0
    assert world.box(kept.id).state is SandboxState.WARM
    left = [world.box(box.id).state for box in boxes]
    assert sorted(left) == [SandboxState.STOPPING, SandboxState.WARM]


# A launch that fails


@pytest.mark.parametrize(
    ("engine", "error", "state"),
    [
        (EngineThatRefuses("create_failed"), errors.SandboxRefused, HostState.UP),
        (EngineThatRefuses("image_missing"), errors.SandboxRefused, HostState.SUSPECT),
        (EngineThatIsDown(), errors.EngineUnavailable, HostState.SUSPECT),
    ],
    ids=["refused", "without the image", "down"],
)
def test_a_launch_that_fails_leaves_a_broken_sandbox_and_raises(
    world: World, engine: EngineInMemory, error: type[Exception], state: HostState
) -> None:
    host = world.host(slots=9)
    world.engine = engine
    with pytest.raises(error):
        refill(world)
    broken = world.boxes(SandboxState.BROKEN)
    assert len(broken) == 1
    assert broken[0].reason
    assert world.store.hosts.get(host.id).state is state


def test_a_disk_that_is_full_closes_its_host_to_placements(world: World) -> None:
    host = world.host(slots=9)
    world.engine = EngineThatRefuses("disk_full")
    with pytest.raises(errors.SandboxRefused):
        refill(world)
    after = world.store.hosts.get(host.id)
    assert (after.state, after.shortage, after.open) == (HostState.UP, "its disk is full", False)


def test_a_broken_warm_sandbox_goes_step_by_step_until_its_slot_is_free(world: World) -> None:
    world.host(slots=9)
    world.engine = EngineThatRefuses(times=1)
    with pytest.raises(errors.SandboxRefused):
        refill(world)
    (broken,) = world.boxes()
    assert reconcile.clear(world.deps) == 1
    assert world.box(broken.id).state is SandboxState.STOPPING
    assert reconcile.clear(world.deps) == 0
    assert world.box(broken.id).state is SandboxState.STOPPING, "its withdrawal isn't confirmed"
    assert world.engine.removed == []
    world.publish()
    assert reconcile.clear(world.deps) == 1
    assert world.box(broken.id).state is SandboxState.GONE
    assert world.engine.removed == [broken.id]
    assert world.store.hosts.loads()[0].used == 0
    assert reconcile.clear(world.deps) == 0


class EngineThatKeeps(EngineInMemory):
    """Removes nothing: its disk is in trouble."""

    def remove(self, sandbox_id: SandboxId) -> None:
        raise errors.SandboxRefused("driver failed to remove root filesystem")


@pytest.mark.parametrize("engine", [EngineThatIsDown(), EngineThatKeeps()], ids=["down", "keeps"])
def test_a_host_whose_docker_fails_keeps_nobody_elses_leftovers(
    world: World, engine: EngineInMemory
) -> None:
    down, sound = world.host(slots=1), world.host(slots=1, publish_address="10.0.0.2")
    boxes = [world.warm(), world.warm()]
    assert {box.host_id for box in boxes} == {down.id, sound.id}
    world.engines.special[down.id] = engine
    for box in boxes:
        claims.retire(world.deps, box, "a test said so")
    world.publish()
    assert reconcile.clear(world.deps) == 1
    (left,) = world.boxes()
    assert (left.host_id, left.state) == (down.id, SandboxState.STOPPING)


def test_a_launch_that_was_overtaken_by_a_diagnosis_raises_a_lost_race(world: World) -> None:
    world.host()
    world.engine = EngineThatRefuses()
    box = world.store.sandboxes.place(samples.new_sandbox(), NOW)
    claims.retire(world.deps, box, "it took too long")
    with pytest.raises(errors.StaleWrite):
        pool.launch(world.deps, box)
    assert world.box(box.id).reason == "it took too long"


# Claims


def test_a_sandbox_whose_route_is_published_is_not_removed(world: World) -> None:
    world.host()
    box = world.warm()
    claims.retire(world.deps, box, "a test said so")
    with pytest.raises(errors.Conflict):
        claims.remove(world.deps, world.box(box.id))
    assert box.id in world.engine.found


def test_what_is_left_on_a_lost_host_is_given_back_without_asking_it(world: World) -> None:
    host = world.host()
    box = world.warm()
    world.engine = EngineThatIsDown()
    world.lose(host)
    assert reconcile.clear(world.deps) == 1
    world.publish()
    assert reconcile.clear(world.deps) == 1
    assert world.box(box.id).state is SandboxState.GONE
    assert world.engine.removed == []


@pytest.mark.parametrize("state", HostState)
def test_a_host_that_is_up_or_joining_becomes_suspect_by_what_it_failed_at(
    world: World, state: HostState
) -> None:
    host = world.host(state=state, reason="of before")
    claims.suspect(world.deps, host.id, "no answer")
    after = world.store.hosts.get(host.id)
    if state in {HostState.UP, HostState.JOINING}:
        assert (after.state, after.reason) == (HostState.SUSPECT, "no answer")
    else:
        assert after == host


def test_warm_sandboxes_and_free_slots_are_what_is_available(world: World) -> None:
    world.host(slots=4)
    world.host(slots=9, cordoned=True)
    assert claims.available(world.store, 99) == 4
    world.warm()
    assert claims.available(world.store, 99) == 4
    world.converge(world.ask())
    assert claims.available(world.store, 99) == 3
    assert claims.available(world.store, 2) == 2, "it is counted no further than is asked"
