"""What Docker says and what the store says, compared and set right."""

from __future__ import annotations

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import SessionState
from orchestrator.services.pool import claims, reconcile
from tests.fakes import samples
from tests.fakes.engine import (
    EngineInMemory,
    EngineThatIsDown,
    EngineThatLooksAway,
)
from tests.fakes.samples import NOW
from tests.unit.services.world import RaceToWrite, World


def test_an_orphan_is_removed(world: World) -> None:
    host = world.host()
    stray = ids.new_sandbox_id()
    world.engine.add(stray)
    assert world.reconcile(host) == reconcile.Treated(orphans=1)
    assert world.engine.found == {}


def test_a_container_that_outlived_its_sandbox_is_an_orphan(world: World) -> None:
    host = world.host()
    box = world.warm()
    claims.retire(world.deps, box, "a test said so")
    world.publish()
    claims.remove(world.deps, world.box(box.id))
    world.engine.add(box.id)
    assert world.reconcile(host) == reconcile.Treated(orphans=1)


def test_a_sandbox_on_one_host_is_not_looked_for_on_another(world: World) -> None:
    first = world.host()
    world.warm()
    other = world.host(cordoned=True)
    world.engines.special[other.id] = EngineInMemory()
    assert world.reconcile(other) == reconcile.Treated()
    assert world.reconcile(first) == reconcile.Treated()


def test_a_vanished_sandbox_is_broken_and_its_session_looked_at(world: World) -> None:
    host = world.host()
    ready = world.run(world.ask())
    box = world.sandbox_of(ready)
    world.engine.found.clear()
    world.queue.nudges.clear()
    assert world.reconcile(host) == reconcile.Treated(broken=1)
    assert world.box(box.id).reason == "its container is gone"
    assert world.session(ready).due_at <= world.clock.now()
    assert world.queue.nudged == [ready.id]


def test_a_broken_sandbox_of_a_session_is_left_to_the_session(world: World) -> None:
    host = world.host()
    ready = world.run(world.ask())
    world.engine.crash(world.sandbox_of(ready).id)
    world.reconcile(host)
    assert world.reconcile(host) == reconcile.Treated()
    assert reconcile.clear(world.deps) == 0
    assert world.sandbox_of(ready).state is SandboxState.BROKEN


def test_a_session_that_was_not_told_of_its_broken_sandbox_is_told_at_the_next_pass(
    world: World,
) -> None:
    host = world.host()
    ready = world.run(world.ask())
    world.engine.crash(world.sandbox_of(ready).id)
    sound, world.store = world.store, RaceToWrite(world.store)
    assert world.reconcile(host) == reconcile.Treated()
    assert world.sandbox_of(ready).state is SandboxState.BROKEN
    assert world.session(ready).due_at == ready.expires_at, "the race was not lost"

    world.store = sound
    world.queue.nudges.clear()
    assert reconcile.clear(world.deps) == 0
    assert world.session(ready).due_at <= world.clock.now()
    assert world.queue.nudged == [ready.id]


def test_a_sandbox_that_came_up_while_docker_was_asked_is_not_broken(world: World) -> None:
    """Its container is in no list yet, but it is written down by the time the store is read."""
    host = world.host()
    box = world.store.sandboxes.place(samples.new_sandbox(), NOW)
    world.engine = EngineThatLooksAway(lambda: claims.start(world.deps, box, replace_stale=False))
    assert world.reconcile(host) == reconcile.Treated(unsure=1)
    assert world.box(box.id).state is SandboxState.CREATING
    assert world.box(box.id).container_id is not None


def test_what_has_exited_is_broken_whatever_a_later_list_says(world: World) -> None:
    """Docker tells of an exit a moment before its lists have it."""
    host = world.host()
    box = world.warm()
    world.engine.crash(box.id)
    told = world.engine.containers()
    world.engine.add(box.id)
    assert reconcile.reconcile(world.deps, host, told, NOW) == reconcile.Treated(broken=1)


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
    assert world.reconcile(host) == reconcile.Treated(orphans=1)
    assert world.box(box.id).reason == "made from an older runtime image"


def test_an_engine_that_is_down_breaks_nothing(world: World) -> None:
    host = world.host()
    ready = world.run(world.ask())
    world.engine = EngineThatIsDown()
    with pytest.raises(errors.EngineUnavailable):
        world.reconcile(host)
    assert world.sandbox_of(ready).state is SandboxState.CLAIMED


def test_emptying_a_host_removes_all_its_containers_and_keeps_the_sessions(world: World) -> None:
    host = world.host()
    ready = world.run(world.ask())
    world.engine.add(ids.new_sandbox_id())
    assert reconcile.empty(world.deps, host) == 2
    assert world.engine.found == {}
    assert world.engine.dismantled
    assert world.state(ready) is SessionState.READY
