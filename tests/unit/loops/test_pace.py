"""What nobody waits for gives way to sessions that are arriving: warm starts and removals."""

from __future__ import annotations

from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.loops.engine_calls import EngineCalls
from orchestrator.loops.passes import Launcher
from orchestrator.services.pool import claims
from tests.fakes.threads import Deferred, run_at_once
from tests.unit.services.world import OPERATOR, World


def come(world: World) -> None:
    """A session comes, and takes a warm sandbox of its own."""
    world.add_warm_sandbox()
    world.converge(world.create_session(OPERATOR))


def test_a_refill_gives_way_to_a_burst_but_goes_on_if_more_come(world: World) -> None:
    world.add_host(slots=9)
    launcher = Launcher(world.deps, EngineCalls(world.deps, run_at_once))
    for pause_s, summary in ((0.0, ""), (0.9, ""), (0.2, "starts=1 retired=0")):
        world.clock.advance(pause_s)
        come(world)
        assert launcher.refill() == summary


def test_a_refill_waits_for_the_end_of_a_burst_of_which_all_have_come_but_not_for_ever(
    world: World,
) -> None:
    world.add_host(slots=9)
    come(world)
    launcher = Launcher(world.deps, EngineCalls(world.deps, run_at_once))
    for pause_s, summary in ((0.0, ""), (2.0, ""), (7.9, ""), (0.2, "starts=1 retired=0")):
        world.clock.advance(pause_s)
        assert launcher.refill() == summary


def test_a_refill_goes_on_as_soon_as_somebody_lacks_a_warm_sandbox(world: World) -> None:
    world.add_host(slots=9)
    world.converge(world.create_session())  # a sandbox of its own is made for it
    launcher = Launcher(world.deps, EngineCalls(world.deps, run_at_once))
    for pause_s, summary in ((0.0, ""), (1.1, "starts=1 retired=0")):
        world.clock.advance(pause_s)
        assert launcher.refill() == summary


def remove_in_passes(world: World, *pauses_s: float, arrive: bool = False) -> list[int]:
    """Retire three sandboxes, and try to remove them in passes after these pauses. Returns how many
    removals each pass began; none of them ends."""
    calls, removals = EngineCalls(world.deps, Deferred()), []
    for sandbox in [world.add_warm_sandbox() for _ in range(3)]:
        claims.retire(world.deps, sandbox, "for a test")
    world.publish()
    stopping = world.sandboxes(SandboxState.STOPPING)
    come(world)
    for pause_s in pauses_s:
        world.clock.advance(pause_s)
        if arrive:
            come(world)
        calls.pace.begin_pass()
        removals.append(sum(calls.remove(sandbox) for sandbox in stopping))
    return removals


def test_removals_give_way_to_a_burst_and_then_go_on_one_by_one(world: World) -> None:
    world.add_host(slots=9)
    assert remove_in_passes(world, 0.0, 0.9, 0.2, arrive=True) == [0, 0, 1]


def test_removals_give_way_for_longer_while_the_pool_has_plenty(world: World) -> None:
    world.add_host(slots=9)
    world.add_warm_sandbox()
    assert remove_in_passes(world, 0.0, 1.1, 8.8, 0.2, arrive=True) == [0, 0, 0, 1]


def test_a_slot_that_somebody_waits_for_is_freed_although_the_burst_goes_on(world: World) -> None:
    world.add_host(slots=9)
    world.create_session()  # it is in the queue
    assert remove_in_passes(world, 0.0, 1.1) == [0, 1]
