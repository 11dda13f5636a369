"""Several workers converge one session at once: one wins, and no step is done twice."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import ports
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import Host
from orchestrator.domain.sessions.session import Phase
from orchestrator.services.sessions import converge
from tests.unit.services.world import RaceToWrite, World


@pytest.mark.parametrize("times", [1, 3])
def test_after_a_lost_race_converge_observes_again_and_repeats_nothing(
    world: World, times: int
) -> None:
    world.add_host()
    session = world.create_session()
    world.add_warm_sandbox()
    world.converge(session)
    world.report(session, Phase.DEPLOYING)
    sound, world.store = world.store, RaceToWrite(world.store, times)
    outcome = world.converge(session)
    assert outcome.steps == ("Advance",) * (times + 1) + ("Wait",)
    world.store = sound
    assert world.history(session) == "queued provisioning deploying"


@pytest.mark.parametrize("warm", [0, 2])
def test_a_lost_race_for_a_claim_still_takes_only_one_sandbox(world: World, warm: int) -> None:
    world.add_host()
    for _ in range(warm):
        world.add_warm_sandbox()
    session = world.create_session()
    world.store = RaceToWrite(world.store, times=2)
    outcome = world.converge(session)
    assert outcome.steps[:2] == ("Claim", "Claim")
    assert len(world.sandboxes()) == max(1, warm)
    assert [sandbox.session_id for sandbox in world.sandboxes()].count(session.id) == 1


def test_a_converge_that_loses_every_race_stops(world: World) -> None:
    world.add_host()
    session = world.create_session()
    world.add_warm_sandbox()
    world.converge(session)
    world.report(session, Phase.DEPLOYING)
    world.store = RaceToWrite(world.store, times=1000)
    assert world.converge(session).waits_for == "too_many_steps"


class HostsThatVanish:
    """A store's hosts, which are deleted before anybody reads one."""

    def __init__(self, hosts: ports.Hosts) -> None:
        self._hosts = hosts

    def get(self, host_id: HostId) -> Host:
        raise errors.NotFound(f"there is no host {host_id}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hosts, name)


class StoreWithoutHosts:
    """A working store, but for HostsThatVanish."""

    def __init__(self, store: ports.Store) -> None:
        self._store = store
        self.hosts = HostsThatVanish(store.hosts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_session_whose_host_has_just_been_deleted_is_looked_at_all_the_same(
    world: World,
) -> None:
    world.add_host()
    session = world.create_session()
    world.add_warm_sandbox()
    world.converge(session)
    world.store = StoreWithoutHosts(world.store)

    outcome = world.converge(session)

    assert outcome.state is not None, "it is there, only its host isn't"
    assert outcome.steps


def test_a_session_that_is_not_there_is_nothing_to_do(world: World) -> None:
    outcome = converge.converge(world.deps, ids.new_session_id())

    assert (outcome.state, outcome.steps) == (None, ())
