"""Hosts that answer are prepared for placements, and measured while they are UP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.pool.host import Host, HostState
from orchestrator.domain.pool.host_liveness import LinkState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.services.pool import host_life
from tests.fakes import samples
from tests.fakes.engine import EngineInMemory, EngineThatIsDown
from tests.fakes.fleet import REACHABLE, df_and_meminfo
from tests.fakes.samples import NOW
from tests.unit.services.world import World

AWAY = LinkState(up=False, since=NOW, reason="no route to host")
NEXT = "spawnai/sandbox:next"


def stored(world: World, host: Host) -> Host:
    return world.store.hosts.get(host.id)


def record(world: World, host: Host, link: LinkState) -> Host:
    return host_life.record_link_state(world.deps, stored(world, host), link)


def admit(world: World, host: Host) -> Host:
    return host_life.admit(world.deps, world.fleet, stored(world, host))


# Admission


@pytest.mark.parametrize("before", [HostState.JOINING, HostState.SUSPECT])
def test_a_host_that_is_found_fit_is_up_and_fenced(world: World, before: HostState) -> None:
    host = world.add_host(state=before, image="", reason="of before", seen_at=None)
    after = admit(world, host)
    assert (after.state, after.reason, after.image) == (HostState.UP, "", samples.IMAGE)
    assert (after.seen_at, after.state_since) == (NOW, NOW)
    assert world.engine.prepare_count == 1
    assert "hosts" in world.events.sent
    assert stored(world, host) == after


class EngineWithoutNetworks(EngineInMemory):
    """Can't make the network that sandboxes need."""

    def prepare(self) -> Sequence[str]:
        raise errors.EngineUnavailable("the network could not be made")


@pytest.mark.parametrize("before", [HostState.JOINING, HostState.SUSPECT])
@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (EngineThatIsDown(), "the engine does not answer"),
        (EngineWithoutNetworks(), "the network could not be made"),
    ],
    ids=["down", "without networks"],
)
def test_a_host_whose_docker_fails_stays_out_and_gives_the_reason(
    world: World, before: HostState, engine: EngineInMemory, reason: str
) -> None:
    host = world.add_host(state=before)
    world.engine = engine
    assert admit(world, host).reason == reason
    assert stored(world, host).state is before


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ssh://root@10.0.0.9", "is on its way there"),
        ("unix:///run/docker.sock", "spawnctl image build"),
    ],
)
def test_a_host_without_a_runtime_image_waits_for_it(world: World, url: str, reason: str) -> None:
    host = world.add_host(state=HostState.JOINING, docker_url=url, image="")
    world.engine.images.clear()
    after = admit(world, host)
    assert after.state is HostState.JOINING
    assert reason in after.reason


def test_before_any_image_was_built_the_reason_says_so(world: World) -> None:
    host = world.add_host(state=HostState.JOINING, image="")
    world.image = ""
    assert "spawnctl image build" in admit(world, host).reason


def test_a_host_is_up_with_the_older_image_that_it_has(world: World) -> None:
    host = world.add_host(state=HostState.SUSPECT)
    world.image = NEXT
    after = admit(world, host)
    assert (after.state, after.image) == (HostState.UP, samples.IMAGE)


def test_a_remote_host_without_its_fences_gets_no_sandboxes(world: World) -> None:
    """This machine's own engine may do without them: its operator is warned."""
    remote = world.add_host(state=HostState.JOINING, docker_url="ssh://root@10.0.0.9")
    local = world.add_host(state=HostState.JOINING)
    world.engine.warnings = ["iptables is missing"]
    assert admit(world, remote).reason == "iptables is missing"
    assert stored(world, remote).state is HostState.JOINING
    assert admit(world, local).state is HostState.UP


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("ssh://root@10.0.0.9", "apt-get install docker.io"),
        ("unix:///run/docker.sock", "SPAWN_STATE_DIR"),
    ],
)
def test_a_host_whose_docker_sees_other_files_stays_out_with_advice(
    world: World, url: str, advice: str
) -> None:
    host = world.add_host(state=HostState.JOINING, docker_url=url)
    world.engine.is_blind = True
    after = admit(world, host)
    assert after.state is HostState.JOINING
    assert host.agent_folder in after.reason
    assert advice in after.reason


def test_a_host_with_a_shortage_is_up_and_gets_no_new_sandboxes(world: World) -> None:
    host = world.add_host(state=HostState.JOINING)
    world.fleet.measured[host.id] = df_and_meminfo(disk_bytes=512 * 1024**2)
    after = admit(world, host)
    assert (after.state, after.accepts_placements) == (HostState.UP, False)
    assert after.shortage == "disk: 0.5 GiB free, of the 1.0 that it has to keep"


def test_a_host_that_was_lost_during_its_admission_is_not_up(world: World) -> None:
    host = world.add_host(state=HostState.SUSPECT)
    before = stored(world, host)
    world.lose_host(host)
    record(world, host, REACHABLE)
    assert host_life.admit(world.deps, world.fleet, before).state is HostState.JOINING


# Sweeps


def test_a_sweep_removes_all_but_the_live_containers_of_this_generation(world: World) -> None:
    host = world.add_host(slots=9)
    stale = world.add_warm_sandbox()
    world.store.hosts.change(host.id, lambda host: replace(host, generation=2))
    live = world.add_warm_sandbox()
    world.engine.add(ids.new_sandbox_id(), running=False)
    assert host_life.sweep(world.deps, stored(world, host), world.engine.containers()) == 2
    assert world.engine.containers_by_sandbox.keys() == {live.id}
    assert world.sandbox(stale.id).state is SandboxState.WARM, "a sweep does not write to the store"


# Refreshes and shortages


def test_a_refresh_finds_a_new_image_and_removes_the_old_one(world: World) -> None:
    host = world.add_host()
    world.image = NEXT
    host_life.refresh(world.deps, world.fleet, stored(world, host))
    assert stored(world, host) == host
    assert world.engine.images == {samples.IMAGE}
    world.engine.images.add(NEXT)
    host_life.refresh(world.deps, world.fleet, stored(world, host))
    assert stored(world, host).image == NEXT
    assert world.engine.images == {NEXT}
    assert world.events.sent == ["hosts"]


def test_a_refresh_sees_that_there_is_room_again(world: World) -> None:
    host = world.add_host(shortage="its disk is full")
    assert not stored(world, host).accepts_placements
    host_life.refresh(world.deps, world.fleet, stored(world, host))
    assert stored(world, host).accepts_placements


def test_a_host_that_lost_its_image_is_suspect_after_the_next_refresh(world: World) -> None:
    host = world.add_host()
    world.engine.images.clear()
    host_life.refresh(world.deps, world.fleet, stored(world, host))
    after = stored(world, host)
    assert (after.state, after.image) == (HostState.SUSPECT, ""), (
        "an image that it seems to have is not sent again"
    )
    assert world.image in after.reason


@pytest.mark.parametrize(
    ("output", "shortage"),
    [
        (df_and_meminfo(), ""),
        (df_and_meminfo(disk_bytes=1024**3, memory_bytes=256 * 1024**2), ""),
        (df_and_meminfo(disk_bytes=1024**3 - 1024), "disk: 1.0 GiB free"),
        (df_and_meminfo(memory_bytes=128 * 1024**2), "memory: 0.1 GiB free"),
        ("df: command not found", ""),
    ],
)
def test_a_shortage_is_a_resource_below_its_floor(world: World, output: str, shortage: str) -> None:
    host = world.add_host()
    world.fleet.measured[host.id] = output
    assert find_shortage(world, host).startswith(shortage)
    assert bool(find_shortage(world, host)) == bool(shortage)


def test_the_cpus_of_a_host_are_known_once_it_is_up_and_measured_again_then(world: World) -> None:
    host = world.add_host(state=HostState.JOINING, cpus=0)
    world.engine.description["cpus"] = 8
    assert host_life.admit(world.deps, world.fleet, host).cpus == 8
    world.engine.description["cpus"] = 4
    host_life.refresh(world.deps, world.fleet, stored(world, host))
    assert stored(world, host).cpus == 4


def find_shortage(world: World, host: Host) -> str:
    return host_life.find_shortage(world.deps, world.fleet, host, "/var/lib/docker")


def test_the_disk_that_is_measured_is_dockers_own(world: World) -> None:
    host = world.add_host()
    world.engine.description["root"] = "/mnt/big disk/docker"
    host_life.refresh(world.deps, world.fleet, host)
    ((_, argv),) = world.fleet.commands
    assert argv[-1] == "/mnt/big disk/docker", "the shell does not split the path"
