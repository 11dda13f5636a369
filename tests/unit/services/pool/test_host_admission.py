"""Hosts that answer are made fit for placements, and measured for as long as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.pool.host import Host, HostState, Reach
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.services.pool import host_life
from tests.fakes import samples
from tests.fakes.engine import EngineInMemory, EngineThatIsDown
from tests.fakes.fleet import HERE, measures
from tests.fakes.samples import NOW
from tests.unit.services.world import World

AWAY = Reach(up=False, since=NOW, reason="no route to host")
NEXT = "spawnai/sandbox:next"


def stored(world: World, host: Host) -> Host:
    return world.store.hosts.get(host.id)


def look(world: World, host: Host, reach: Reach) -> Host:
    return host_life.look(world.deps, stored(world, host), reach)


def admit(world: World, host: Host) -> Host:
    return host_life.admit(world.deps, world.fleet, stored(world, host))


# Admission


@pytest.mark.parametrize("before", [HostState.JOINING, HostState.SUSPECT])
def test_a_host_that_is_found_fit_is_up_and_fenced(world: World, before: HostState) -> None:
    host = world.host(state=before, image="", reason="of before", seen_at=None)
    after = admit(world, host)
    assert (after.state, after.reason, after.image) == (HostState.UP, "", samples.IMAGE)
    assert (after.seen_at, after.state_since) == (NOW, NOW)
    assert world.engine.prepared == 1
    assert "pool" in world.events.sent
    assert stored(world, host) == after


class EngineWithoutNetworks(EngineInMemory):
    """Can't make what sandboxes need."""

    def prepare(self) -> Sequence[str]:
        raise errors.EngineUnavailable("the network could not be made")


@pytest.mark.parametrize("before", [HostState.JOINING, HostState.SUSPECT])
@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (EngineThatIsDown(), "the engine does not answer"),
        (EngineWithoutNetworks(), "the network could not be made"),
    ],
    ids=["down", "without networks"],
)
def test_a_host_whose_docker_fails_stays_out_and_says_why(
    world: World, before: HostState, engine: EngineInMemory, why: str
) -> None:
    host = world.host(state=before)
    world.engine = engine
    assert admit(world, host).reason == why
    assert stored(world, host).state is before


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ssh://root@10.0.0.9", "is on its way there"),
        ("unix:///run/docker.sock", "spawnctl image build"),
    ],
)
def test_a_host_without_any_image_of_ours_waits_for_it(world: World, url: str, said: str) -> None:
    host = world.host(state=HostState.JOINING, docker_url=url, image="")
    world.engine.images.clear()
    after = admit(world, host)
    assert after.state is HostState.JOINING
    assert said in after.reason


def test_before_any_image_was_built_that_is_what_is_said(world: World) -> None:
    host = world.host(state=HostState.JOINING, image="")
    world.image = ""
    assert "spawnctl image build" in admit(world, host).reason


def test_a_host_is_up_with_the_older_image_that_it_has(world: World) -> None:
    host = world.host(state=HostState.SUSPECT)
    world.image = NEXT
    after = admit(world, host)
    assert (after.state, after.image) == (HostState.UP, samples.IMAGE)


def test_a_remote_host_without_its_fences_takes_nothing(world: World) -> None:
    """This machine's own engine may do without: whoever runs it is told."""
    there = world.host(state=HostState.JOINING, docker_url="ssh://root@10.0.0.9")
    here = world.host(state=HostState.JOINING)
    world.engine.warnings = ["iptables is missing"]
    assert admit(world, there).reason == "iptables is missing"
    assert stored(world, there).state is HostState.JOINING
    assert admit(world, here).state is HostState.UP


def test_a_host_that_is_short_of_something_is_up_and_takes_nothing(world: World) -> None:
    host = world.host(state=HostState.JOINING)
    world.fleet.measures[host.id] = measures(disk_bytes=512 * 1024**2)
    after = admit(world, host)
    assert (after.state, after.open) == (HostState.UP, False)
    assert after.shortage == "disk: 0.5 GiB free, of the 1.0 that it has to keep"


def test_a_host_that_was_lost_during_its_admission_is_not_up(world: World) -> None:
    host = world.host(state=HostState.SUSPECT)
    known = stored(world, host)
    world.lose(host)
    look(world, host, HERE)
    assert host_life.admit(world.deps, world.fleet, known).state is HostState.JOINING


# Sweeps


def test_a_sweep_removes_all_but_the_live_of_this_generation(world: World) -> None:
    host = world.host(slots=9)
    stale = world.warm()
    world.store.hosts.change(host.id, lambda found: replace(found, generation=2))
    live = world.warm()
    world.engine.add(ids.new_sandbox_id(), running=False)
    assert host_life.sweep(world.deps, stored(world, host), world.engine.containers()) == 2
    assert world.engine.found.keys() == {live.id}
    assert world.box(stale.id).state is SandboxState.WARM, "the store is others' business"


# Refreshes and measures


def test_a_refresh_finds_the_image_that_came_and_forgets_the_one_of_before(world: World) -> None:
    host = world.host()
    world.image = NEXT
    host_life.refresh(world.deps, world.fleet, stored(world, host))
    assert stored(world, host) == host
    assert world.engine.images == {samples.IMAGE}
    world.engine.images.add(NEXT)
    host_life.refresh(world.deps, world.fleet, stored(world, host))
    assert stored(world, host).image == NEXT
    assert world.engine.images == {NEXT}
    assert world.events.sent == ["pool"]


def test_a_refresh_sees_that_there_is_room_again(world: World) -> None:
    host = world.host(shortage="its disk is full")
    assert not stored(world, host).open
    host_life.refresh(world.deps, world.fleet, stored(world, host))
    assert stored(world, host).open


def test_a_host_that_lost_its_image_says_so_at_the_next_refresh(world: World) -> None:
    host = world.host()
    world.engine.images.clear()
    host_life.refresh(world.deps, world.fleet, stored(world, host))
    after = stored(world, host)
    assert (after.state, after.image) == (HostState.SUSPECT, ""), "it is not sent there again"
    assert world.image in after.reason


@pytest.mark.parametrize(
    ("said", "short"),
    [
        (measures(), ""),
        (measures(disk_bytes=1024**3, memory_bytes=256 * 1024**2), ""),
        (measures(disk_bytes=1024**3 - 1024), "disk: 1.0 GiB free"),
        (measures(memory_bytes=128 * 1024**2), "memory: 0.1 GiB free"),
        ("df: command not found", ""),
    ],
)
def test_a_host_is_short_of_what_is_below_its_floor(world: World, said: str, short: str) -> None:
    host = world.host()
    world.fleet.measures[host.id] = said
    assert host_life.measure(world.deps, world.fleet, host).startswith(short)
    assert bool(host_life.measure(world.deps, world.fleet, host)) == bool(short)


def test_the_disk_that_is_measured_is_dockers_own(world: World) -> None:
    host = world.host()
    world.engine.description["root"] = "/mnt/big disk/docker"
    host_life.measure(world.deps, world.fleet, host)
    ((_, argv),) = world.fleet.ran
    assert argv[-1] == "/mnt/big disk/docker", "no shell takes it apart"
