"""The warm pool: it is filled up to its target, and broken sandboxes are cleared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.host import HostState
from orchestrator.domain.pool.refill import Arrivals
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import SessionState
from orchestrator.services.agents import inbox
from orchestrator.services.deps import Policy
from orchestrator.services.pool import claims, refill
from tests.fakes import samples
from tests.fakes.engine import (
    EngineInMemory,
    EngineThatIsDown,
    EngineThatRefuses,
)
from tests.fakes.samples import NOW
from tests.unit.services.world import World


def run_refill(world: World) -> list[Sandbox]:
    """One pass that launches its sandboxes at once; returns them."""
    started: list[Sandbox] = []

    def launch(sandbox: Sandbox) -> None:
        refill.launch(world.deps, sandbox)
        started.append(sandbox)

    refill.start_missing(world.deps, launch)
    return started


# Refill


def test_the_pool_fills_up_to_its_target_and_stays_there(world: World) -> None:
    world.add_host(slots=9)
    started = run_refill(world)
    assert len(started) == 3
    assert run_refill(world) == [], "starts in progress count"
    world.publish()
    for sandbox in started:
        inbox.visit(world.deps, sandbox.id, "")
    assert len(world.sandboxes(SandboxState.WARM)) == 3
    assert run_refill(world) == []


def test_a_claimed_sandbox_is_replaced(world: World) -> None:
    world.add_host(slots=9)
    for _ in range(3):
        world.add_warm_sandbox()
    session = world.create_session()
    world.converge(session)
    world.save(session, state=SessionState.READY)
    assert len(run_refill(world)) == 1


def test_a_refill_gives_way_to_sessions_that_are_about_to_be_ready(world: World) -> None:
    world.add_host(slots=9)
    world.add_warm_sandbox()
    world.converge(world.create_session())
    for lasting_s, starts in ((0.0, 0), (1.0, 1)):
        arrivals = Arrivals(lasting_s=lasting_s, newest_s=0.0)
        level = refill.measure_level(world.deps, arrivals)
        assert refill.start_missing(world.deps, lambda sandbox: None, level).starts == starts


def test_a_waiting_session_comes_before_the_pool(world: World) -> None:
    world.create_session()
    world.add_host()
    assert run_refill(world) == []


def test_a_pool_without_room_gives_the_reason(world: World) -> None:
    world.add_host(slots=4)
    started: list[Sandbox] = []
    decision = refill.start_missing(world.deps, started.append)
    assert (decision.starts, len(started)) == (2, 2), "two slots stay free for sessions"
    assert (
        refill.start_missing(world.deps, started.append).reason == "no free slot beside the reserve"
    )


def test_a_refill_stops_when_the_room_is_taken_meanwhile(world: World) -> None:
    host = world.add_host(slots=5)

    def launch_while_others_come(sandbox: Sandbox) -> None:
        world.store.hosts.put(replace(host, cordoned=True))

    decision = refill.start_missing(world.deps, launch_while_others_come)
    assert "no host has a free slot" in decision.reason
    assert len(world.sandboxes()) == 1


def test_an_outdated_warm_sandbox_is_retired_once_a_new_one_is_warm(world: World) -> None:
    world.add_host(slots=9)
    world.policy = Policy(warm_target=2)
    old = [world.add_warm_sandbox()]
    world.clock.advance(1)
    old.append(world.add_warm_sandbox())
    world.roll_out_image("spawnai/sandbox:next")
    assert refill.retire_surplus(world.deps) == 0, "the old ones serve until then"
    new = world.add_warm_sandbox()
    assert refill.retire_surplus(world.deps) == 1
    assert [world.sandbox(sandbox.id).state for sandbox in (*old, new)] == [
        SandboxState.STOPPING,
        SandboxState.WARM,
        SandboxState.WARM,
    ]
    assert world.sandbox(old[0].id).reason == "made from an older runtime image"
    world.add_warm_sandbox()
    assert refill.retire_surplus(world.deps) == 1
    assert refill.retire_surplus(world.deps) == 0
    assert {sandbox.image for sandbox in world.sandboxes(SandboxState.WARM)} == {world.image}


def test_without_room_for_a_new_one_outdated_sandboxes_are_retired_one_at_a_time(
    world: World,
) -> None:
    world.add_host(slots=4)
    world.policy = Policy(warm_target=2)
    world.add_warm_sandbox()
    world.add_warm_sandbox()
    world.roll_out_image("spawnai/sandbox:next")
    assert (
        refill.start_missing(world.deps, lambda sandbox: None).reason
        == "no free slot beside the reserve"
    )
    assert refill.retire_surplus(world.deps) == 1
    assert refill.retire_surplus(world.deps) == 1, "its slot isn't free until it is GONE"


def test_a_claimed_sandbox_of_an_older_image_is_never_replaced(world: World) -> None:
    world.add_host(slots=9)
    world.policy = Policy(warm_target=0)
    ready = world.run_session(world.create_session())
    world.roll_out_image("spawnai/sandbox:next")
    assert refill.retire_surplus(world.deps) == 0
    assert world.sandbox_of(ready).state is SandboxState.CLAIMED


def test_surplus_warm_sandboxes_are_retired_oldest_first(world: World) -> None:
    world.add_host()
    sandboxes = []
    for _ in range(4):
        world.clock.advance(1)
        sandboxes.append(world.add_warm_sandbox())
    world.policy = Policy(warm_target=2)
    assert refill.retire_surplus(world.deps) == 2
    assert [sandbox.id for sandbox in world.sandboxes(SandboxState.WARM)] == [
        sandbox.id for sandbox in sandboxes[2:]
    ]
    assert refill.retire_surplus(world.deps) == 0


def test_a_sandbox_that_can_not_be_claimed_is_not_retired_as_surplus(
    world: World,
) -> None:
    """A host that is cordoned, or unreachable for a moment, keeps its warm sandboxes."""
    closed = world.add_host(slots=9)
    kept = world.add_warm_sandbox()
    world.store.hosts.change(closed.id, lambda host: replace(host, cordoned=True))
    world.add_host(slots=9, publish_address="10.0.0.2")
    world.clock.advance(1)
    sandboxes = [world.add_warm_sandbox() for _ in range(2)]
    world.policy = Policy(warm_target=1)
    assert refill.retire_surplus(world.deps) == 1
    assert refill.retire_surplus(world.deps) == 0
    assert world.sandbox(kept.id).state is SandboxState.WARM
    states = [world.sandbox(sandbox.id).state for sandbox in sandboxes]
    assert sorted(states) == [SandboxState.STOPPING, SandboxState.WARM]


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
    host = world.add_host(slots=9)
    world.engine = engine
    with pytest.raises(error):
        run_refill(world)
    broken = world.sandboxes(SandboxState.BROKEN)
    assert len(broken) == 1
    assert broken[0].reason
    assert world.store.hosts.get(host.id).state is state


def test_a_full_disk_closes_its_host_to_placements(world: World) -> None:
    host = world.add_host(slots=9)
    world.engine = EngineThatRefuses("disk_full")
    with pytest.raises(errors.SandboxRefused):
        run_refill(world)
    after = world.store.hosts.get(host.id)
    assert (after.state, after.shortage, after.accepts_placements) == (
        HostState.UP,
        "its disk is full",
        False,
    )


def test_a_broken_warm_sandbox_goes_step_by_step_until_its_slot_is_free(world: World) -> None:
    world.add_host(slots=9)
    world.engine = EngineThatRefuses(times=1)
    with pytest.raises(errors.SandboxRefused):
        run_refill(world)
    (broken,) = world.sandboxes()
    assert world.clear() == 1
    assert world.sandbox(broken.id).state is SandboxState.STOPPING
    assert world.clear() == 0
    assert world.sandbox(broken.id).state is SandboxState.STOPPING, "its withdrawal isn't confirmed"
    assert world.engine.removed == []
    world.publish()
    assert world.clear() == 1
    assert world.sandbox(broken.id).state is SandboxState.GONE
    assert world.engine.removed == [broken.id]
    assert world.store.hosts.loads()[0].used == 0
    assert world.clear() == 0


class EngineThatRemovesNothing(EngineInMemory):
    """Can't remove containers: its disk is in trouble."""

    def remove(self, sandbox_id: SandboxId) -> None:
        raise errors.SandboxRefused("driver failed to remove root filesystem")


@pytest.mark.parametrize(
    "engine", [EngineThatIsDown(), EngineThatRemovesNothing()], ids=["down", "removes nothing"]
)
def test_a_host_whose_docker_fails_does_not_delay_the_clearing_of_others(
    world: World, engine: EngineInMemory
) -> None:
    down, sound = world.add_host(slots=1), world.add_host(slots=1, publish_address="10.0.0.2")
    sandboxes = [world.add_warm_sandbox(), world.add_warm_sandbox()]
    assert {sandbox.host_id for sandbox in sandboxes} == {down.id, sound.id}
    world.engines.special[down.id] = engine
    for sandbox in sandboxes:
        claims.retire(world.deps, sandbox, "a test said so")
    world.publish()
    assert world.clear() == 1
    (uncleared,) = world.sandboxes()
    assert (uncleared.host_id, uncleared.state) == (down.id, SandboxState.STOPPING)


def test_a_launch_of_a_sandbox_that_was_retired_meanwhile_is_a_stale_write(world: World) -> None:
    world.add_host()
    world.engine = EngineThatRefuses()
    sandbox = world.store.sandboxes.place(samples.new_sandbox(), NOW)
    claims.retire(world.deps, sandbox, "it took too long")
    with pytest.raises(errors.StaleWrite):
        refill.launch(world.deps, sandbox)
    assert world.sandbox(sandbox.id).reason == "it took too long"


# Claims


def test_a_sandbox_whose_route_is_published_is_not_removed(world: World) -> None:
    world.add_host()
    sandbox = world.add_warm_sandbox()
    claims.retire(world.deps, sandbox, "a test said so")
    with pytest.raises(errors.Conflict):
        claims.remove(world.deps, world.sandbox(sandbox.id))
    assert sandbox.id in world.engine.containers_by_sandbox


def test_sandboxes_of_a_lost_host_are_removed_without_asking_its_engine(world: World) -> None:
    host = world.add_host()
    sandbox = world.add_warm_sandbox()
    world.engine = EngineThatIsDown()
    world.lose_host(host)
    assert world.clear() == 1
    world.publish()
    assert world.clear() == 1
    assert world.sandbox(sandbox.id).state is SandboxState.GONE
    assert world.engine.removed == []


@pytest.mark.parametrize("state", HostState)
def test_only_a_host_that_is_up_or_joining_becomes_suspect(world: World, state: HostState) -> None:
    host = world.add_host(state=state, reason="of before")
    claims.mark_suspect(world.deps, host.id, "no answer")
    after = world.store.hosts.get(host.id)
    if state in {HostState.UP, HostState.JOINING}:
        assert (after.state, after.reason) == (HostState.SUSPECT, "no answer")
    else:
        assert after == host


def test_warm_sandboxes_and_free_slots_are_available(world: World) -> None:
    world.add_host(slots=4)
    world.add_host(slots=9, cordoned=True)
    assert claims.count_available(world.store, 99) == 4
    world.add_warm_sandbox()
    assert claims.count_available(world.store, 99) == 4
    world.converge(world.create_session())
    assert claims.count_available(world.store, 99) == 3
    assert claims.count_available(world.store, 2) == 2, "it stops counting at the limit"


def test_a_pool_is_full_only_with_the_wanted_number_of_todays_image(world: World) -> None:
    world.add_host(slots=9)
    world.policy = Policy(warm_target=1)
    assert not refill.is_full(world.deps)
    world.add_warm_sandbox()
    assert refill.is_full(world.deps)
    world.add_warm_sandbox()
    assert not refill.is_full(world.deps)
    world.policy = Policy(warm_target=2)
    world.roll_out_image("spawnai/sandbox:next")
    assert not refill.is_full(world.deps), "they are outdated"
    world.policy = Policy(warm_target=0)
    assert not refill.is_full(world.deps)
