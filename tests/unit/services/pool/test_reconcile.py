"""Differences between Docker and the store, and how they are repaired."""

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
    EngineWithStaleListing,
)
from tests.fakes.samples import NOW
from tests.unit.services.world import RaceToWrite, World


def test_an_orphan_is_removed(world: World) -> None:
    host = world.add_host()
    stray = ids.new_sandbox_id()
    world.engine.add(stray)
    assert world.reconcile(host) == reconcile.ReconcileResult(orphans=1)
    assert world.engine.containers_by_sandbox == {}


def test_a_container_that_outlived_its_sandbox_is_an_orphan(world: World) -> None:
    host = world.add_host()
    sandbox = world.add_warm_sandbox()
    claims.retire(world.deps, sandbox, "a test said so")
    world.publish()
    claims.remove(world.deps, world.sandbox(sandbox.id))
    world.engine.add(sandbox.id)
    assert world.reconcile(host) == reconcile.ReconcileResult(orphans=1)


def test_a_sandbox_on_one_host_is_not_looked_for_on_another(world: World) -> None:
    first = world.add_host()
    world.add_warm_sandbox()
    other = world.add_host(cordoned=True)
    world.engines.special[other.id] = EngineInMemory()
    assert world.reconcile(other) == reconcile.ReconcileResult()
    assert world.reconcile(first) == reconcile.ReconcileResult()


def test_a_vanished_sandbox_is_broken_and_its_session_is_woken(world: World) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    sandbox = world.sandbox_of(ready)
    world.engine.containers_by_sandbox.clear()
    world.queue.nudges.clear()
    assert world.reconcile(host) == reconcile.ReconcileResult(broken=1)
    assert world.sandbox(sandbox.id).reason == "its container is gone"
    assert world.session(ready).due_at <= world.clock.now()
    assert world.queue.nudged == [ready.id]


def test_a_broken_sandbox_of_a_session_is_left_to_the_session(world: World) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    world.engine.crash(world.sandbox_of(ready).id)
    world.reconcile(host)
    assert world.reconcile(host) == reconcile.ReconcileResult()
    assert world.clear() == 0
    assert world.sandbox_of(ready).state is SandboxState.BROKEN


def test_a_session_that_missed_its_broken_sandbox_is_woken_by_the_next_pass(
    world: World,
) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    world.engine.crash(world.sandbox_of(ready).id)
    sound, world.store = world.store, RaceToWrite(world.store)
    assert world.reconcile(host) == reconcile.ReconcileResult()
    assert world.sandbox_of(ready).state is SandboxState.BROKEN
    assert world.session(ready).due_at == ready.expires_at, "the race was not lost"

    world.store = sound
    world.queue.nudges.clear()
    assert world.clear() == 0
    assert world.session(ready).due_at <= world.clock.now()
    assert world.queue.nudged == [ready.id]


def test_a_sandbox_that_came_up_while_docker_was_asked_is_not_broken(world: World) -> None:
    """The listing doesn't have its container yet, but the store has it when it is read."""
    host = world.add_host()
    sandbox = world.store.sandboxes.place(samples.new_sandbox(), NOW)
    world.engine = EngineWithStaleListing(lambda: claims.start(world.deps, sandbox))
    assert world.reconcile(host) == reconcile.ReconcileResult(uncertain=1)
    assert world.sandbox(sandbox.id).state is SandboxState.CREATING
    assert world.sandbox(sandbox.id).container_id is not None


def test_an_exited_container_breaks_its_sandbox_even_if_a_later_list_has_it_running(
    world: World,
) -> None:
    """Docker's event of an exit comes a moment before its lists show it."""
    host = world.add_host()
    sandbox = world.add_warm_sandbox()
    world.engine.crash(sandbox.id)
    listing = world.engine.containers()
    world.engine.add(sandbox.id)
    assert reconcile.reconcile(
        world.deps, host, listing, world.hearing, lambda _host, _container: False
    ) == reconcile.ReconcileResult(broken=1)


def test_a_sandbox_that_changed_meanwhile_is_left_for_the_next_pass(world: World) -> None:
    """The first orphan's removal takes so long that the vanished sandbox is retired meanwhile."""
    host = world.add_host()
    sandbox = world.add_warm_sandbox()

    class EngineThatIsOvertaken(EngineInMemory):
        def remove(self, sandbox_id: ids.SandboxId) -> None:
            super().remove(sandbox_id)
            claims.retire(world.deps, sandbox, "made from an older runtime image")

    world.engine = EngineThatIsOvertaken()
    world.engine.add(ids.new_sandbox_id())
    assert world.reconcile(host) == reconcile.ReconcileResult(orphans=1)
    assert world.sandbox(sandbox.id).reason == "made from an older runtime image"


def test_an_engine_that_is_down_breaks_nothing(world: World) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    world.engine = EngineThatIsDown()
    with pytest.raises(errors.EngineUnavailable):
        world.reconcile(host)
    assert world.sandbox_of(ready).state is SandboxState.CLAIMED


def test_removing_all_containers_of_a_host_keeps_the_sessions(world: World) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    world.engine.add(ids.new_sandbox_id())
    assert reconcile.remove_all_containers(world.deps, host) == 2
    assert world.engine.containers_by_sandbox == {}
    assert world.engine.dismantled
    assert world.state(ready) is SessionState.READY


def test_a_container_that_docker_made_meanwhile_is_removed_too(world: World) -> None:
    class EngineThatFinishesAStart(EngineInMemory):
        def remove(self, sandbox_id: ids.SandboxId) -> None:
            super().remove(sandbox_id)
            if not self.dismantled and sandbox_id == first.id:
                self.add(ids.new_sandbox_id())

    host = world.add_host()
    world.engine = EngineThatFinishesAStart()
    first = world.add_warm_sandbox()
    assert reconcile.remove_all_containers(world.deps, host) == 2
    assert world.engine.containers_by_sandbox == {}
    assert world.engine.dismantled


def test_a_container_that_can_not_be_removed_keeps_no_other_when_all_are(world: World) -> None:
    class EngineWithACorpse(EngineInMemory):
        def remove(self, sandbox_id: ids.SandboxId) -> None:
            if sandbox_id == corpse.id:
                raise errors.Temporary("Docker does not finish removing it", code="remove_failed")
            super().remove(sandbox_id)

    host = world.add_host(slots=9)
    world.engine = EngineWithACorpse()
    corpse = world.add_warm_sandbox()
    world.add_warm_sandbox()
    with pytest.raises(errors.Temporary, match="does not finish"):
        reconcile.remove_all_containers(world.deps, host)
    assert world.engine.containers_by_sandbox.keys() == {corpse.id}
    assert not world.engine.dismantled
