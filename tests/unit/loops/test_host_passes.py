"""Passes over hosts: what each does with what the links say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain import ids
from orchestrator.domain.pool.host import Drain, Host, HostState, Reach
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import SessionState
from orchestrator.loops.host_passes import Hosts, Reconciler
from tests.fakes import samples
from tests.fakes.engine import EngineInMemory, EngineThatIsDown, EngineThatLooksAway
from tests.fakes.fleet import ImagePushesInMemory
from tests.fakes.samples import NOW
from tests.fakes.threads import CallersThread
from tests.unit.services.world import World

AWAY = Reach(up=False, since=NOW, reason="no route to host")
NEXT = "spawnai/sandbox:next"


class Daemon:
    """The passes of one daemon, and what it tells others."""

    def __init__(self, world: World) -> None:
        self.images = ImagePushesInMemory()
        self.inventories: list[list[str]] = []
        self.threads = CallersThread()
        self.hosts = Hosts(world.deps, world.fleet, self.images, self._told, self.threads)
        self.reconciler = Reconciler(world.deps, world.fleet, self.threads)

    def _told(self, hosts: Sequence[Host]) -> None:
        self.inventories.append([f"{host.name} {host.state}" for host in hosts])


@pytest.fixture
def daemon(world: World) -> Daemon:
    return Daemon(world)


def remote(world: World, name: str, **changes: Any) -> Host:
    """A host over SSH with an engine of its own. They stand in the order in which they are made."""
    number = len(world.store.hosts.list()) + 1
    host = world.host(
        name=name,
        docker_url=f"ssh://root@10.0.0.{number}",
        publish_address=f"10.0.0.{number}",
        created_at=samples.later(-100 + number),
        **changes,
    )
    world.engines.special[host.id] = EngineInMemory()
    return host


def state(world: World, host: Host) -> HostState:
    return world.store.hosts.get(host.id).state


# Looks and admissions


def test_a_host_that_joins_is_linked_admitted_and_written_down(
    world: World, daemon: Daemon
) -> None:
    host = remote(world, "alpha", state=HostState.JOINING, reason="it was just added")
    assert daemon.hosts.look() == ""
    assert [one.name for one in world.fleet.kept] == ["alpha"]
    assert state(world, host) is HostState.UP
    daemon.hosts.look()
    assert daemon.inventories == [["alpha joining"], ["alpha up"]]
    daemon.hosts.look()
    assert len(daemon.inventories) == 2, "what is as it was is not written again"


def test_nothing_is_said_of_hosts_that_nothing_is_known_of_yet(
    world: World, daemon: Daemon
) -> None:
    """Our own start is no fault of theirs, however long ago they were seen."""
    up = remote(world, "alpha", seen_at=samples.later(-9999))
    joining = remote(world, "beta", state=HostState.JOINING)
    world.fleet.reaches = {up.id: None, joining.id: None}
    for _ in range(3):
        assert daemon.hosts.look() == ""
        world.clock.advance(60)
    assert world.store.hosts.list() == [up, joining]


def test_a_host_that_changed_is_named_with_the_reason(world: World, daemon: Daemon) -> None:
    remote(world, "alpha")
    beta = remote(world, "beta")
    world.fleet.reaches[beta.id] = AWAY
    assert daemon.hosts.look() == "beta: up -> suspect no route to host"
    assert daemon.hosts.look() == ""
    world.clock.advance(15)
    assert daemon.hosts.look() == "beta: suspect -> lost no route to host"
    del world.fleet.reaches[beta.id]
    assert daemon.hosts.look() == "beta: lost -> joining it is back, and being swept"
    assert state(world, beta) is HostState.UP, "swept and fit"


def test_a_host_that_is_away_is_not_asked_whether_it_is_fit(world: World, daemon: Daemon) -> None:
    host = remote(world, "alpha", state=HostState.JOINING)
    world.fleet.reaches[host.id] = AWAY
    daemon.hosts.look()
    engine = world.engines.special[host.id]
    assert isinstance(engine, EngineInMemory)
    assert engine.prepared == 0


def test_an_image_is_pushed_to_remote_hosts_that_answer_and_lack_it(
    world: World, daemon: Daemon
) -> None:
    world.host(name="here", image="")
    remote(world, "has it")
    remote(world, "has an older one", image="spawnai/sandbox:old")
    away = remote(world, "away", image="")
    world.fleet.reaches[away.id] = AWAY
    new = remote(world, "new", image="", state=HostState.JOINING)
    engine = world.engines.special[new.id]
    assert isinstance(engine, EngineInMemory)
    engine.images.clear()
    daemon.hosts.look()
    assert daemon.images.asked == [["has an older one", "new"]]
    assert "is on its way there" in world.store.hosts.get(new.id).reason

    engine.images.add(samples.IMAGE)
    daemon.hosts.look()
    assert state(world, new) is HostState.UP


def test_a_host_that_leaves_is_not_admitted_again(world: World, daemon: Daemon) -> None:
    host = remote(world, "alpha", state=HostState.SUSPECT, drain=Drain.LEAVE)
    daemon.hosts.look()
    assert state(world, host) is HostState.SUSPECT


# Refreshes


def test_each_host_that_is_up_is_measured_every_ten_seconds(world: World, daemon: Daemon) -> None:
    remote(world, "alpha")
    remote(world, "beta", state=HostState.SUSPECT)
    for _ in range(5):
        daemon.hosts.refresh()
        world.clock.advance(5)
    assert [name for name, _ in world.fleet.ran] == ["alpha"] * 3


def test_the_more_hosts_there_are_the_less_often_each_is_measured(
    world: World, daemon: Daemon
) -> None:
    for number in range(400):
        world.host(name=f"host-{number}", created_at=NOW)
    world.clock.advance(19)
    daemon.hosts.refresh()
    assert world.fleet.ran == []
    world.clock.advance(1)
    daemon.hosts.refresh()
    assert len(world.fleet.ran) == 400


def test_a_host_that_can_not_be_measured_keeps_nobody_else(world: World, daemon: Daemon) -> None:
    alpha, beta = remote(world, "alpha"), remote(world, "beta")
    world.engines.special[alpha.id] = EngineThatIsDown()
    world.image = NEXT
    for host in (alpha, beta):
        world.engines.special[host.id].images.add(NEXT)  # type: ignore[attr-defined]
    daemon.hosts.refresh()
    assert world.store.hosts.get(alpha.id).image == samples.IMAGE
    assert world.store.hosts.get(beta.id).image == NEXT


# Drains


def test_a_drain_is_told_and_goes_on_pass_by_pass(world: World, daemon: Daemon) -> None:
    host = world.host(name="alpha", slots=9)
    ready = world.run(world.ask())
    world.warm()
    remote(world, "beta")
    assert daemon.hosts.drain() == ""
    world.store.hosts.change(host.id, lambda found: replace(found, drain=Drain.MOVE))
    assert daemon.hosts.drain() == "alpha: 2"
    assert daemon.hosts.drain() == ""
    assert world.queue.nudged[-1] == ready.id
    assert world.state(ready) is SessionState.READY


def test_a_host_that_leaves_goes_when_nothing_is_on_it(world: World, daemon: Daemon) -> None:
    remote(world, "alpha", drain=Drain.LEAVE)
    assert daemon.hosts.drain() == ""
    assert daemon.hosts.drain() == "alpha: has left"
    assert world.store.hosts.list() == []


def test_a_host_that_can_not_be_left_yet_keeps_nobody_else(world: World, daemon: Daemon) -> None:
    stuck = remote(world, "alpha", drain=Drain.LEAVE)
    world.engines.special[stuck.id] = EngineThatIsDown()
    remote(world, "beta", drain=Drain.LEAVE)
    daemon.hosts.drain()
    assert daemon.hosts.drain() == "beta: has left"
    assert [host.name for host in world.store.hosts.list()] == ["alpha"]


# Fences


def test_what_the_fences_lack_is_said_of_every_host_each_time(world: World, daemon: Daemon) -> None:
    said: list[Sequence[str]] = []
    world.host(name="alpha")
    down = remote(world, "beta")
    world.engines.special[down.id] = EngineThatIsDown()
    remote(world, "gamma", state=HostState.SUSPECT)
    world.engine.warnings = ["iptables is missing"]
    for _ in range(2):
        assert daemon.hosts.fence(said.append) == "alpha: iptables is missing"
    assert said == [["alpha: iptables is missing"]] * 2
    world.engine.warnings = []
    assert daemon.hosts.fence(said.append) == ""
    assert said[-1] == [], "a warning that is over has to go"


# Reconciling


def orphan(world: World, host: Host) -> None:
    engine = world.engines.of(host)
    assert isinstance(engine, EngineInMemory)
    engine.add(ids.new_sandbox_id())


def test_what_an_event_told_is_compared_at_once(world: World, daemon: Daemon) -> None:
    hosts = [remote(world, f"host-{number}") for number in range(3)]
    daemon.reconciler.run()
    for host in hosts:
        orphan(world, host)
    world.fleet.changed = {hosts[2].id}
    assert daemon.reconciler.run() == "host-1: orphans=1 broken=0; host-2: orphans=1 broken=0"
    assert daemon.reconciler.run() == "", "host-0 has to wait for its turn"


def test_a_change_that_is_told_while_its_host_is_compared_is_not_forgotten(
    world: World, daemon: Daemon
) -> None:
    host = remote(world, "alpha")
    said: list[str] = []

    def meanwhile() -> None:
        orphan(world, host)
        world.fleet.changed = {host.id}
        said.append(daemon.reconciler.run())

    world.engines.special[host.id] = EngineThatLooksAway(meanwhile)
    said.append(daemon.reconciler.run())
    said.append(daemon.reconciler.run())
    assert said == ["", "", "alpha: orphans=1 broken=0"]


def test_what_seemed_amiss_and_was_not_is_looked_at_again(world: World, daemon: Daemon) -> None:
    host = remote(world, "alpha")
    daemon.reconciler.run()
    box = world.warm()
    engine = world.engines.of(host)
    assert isinstance(engine, EngineInMemory)
    seen = engine.found.pop(box.id)
    world.engines.special[host.id] = looks_away = EngineThatLooksAway(
        lambda: looks_away.found.update({box.id: seen})
    )
    world.fleet.changed = {host.id}
    assert daemon.reconciler.run() == ""
    looks_away.found.clear()
    assert daemon.reconciler.run() == "alpha: orphans=0 broken=1"


def test_what_no_event_told_is_compared_within_ten_passes(world: World, daemon: Daemon) -> None:
    hosts = [remote(world, f"host-{number:02}") for number in range(23)]
    for host in hosts:
        orphan(world, host)
    said = [daemon.reconciler.run() for _ in range(10)]
    for host in hosts:
        assert sum(f"{host.name}: orphans=1" in line for line in said) == 1
    assert max(line.count("orphans") for line in said) <= 3, "each pass has its share"


def test_unreachable_is_not_unhealthy(world: World, daemon: Daemon) -> None:
    host = remote(world, "alpha")
    box = world.warm()
    engine = world.engines.of(host)
    assert isinstance(engine, EngineInMemory)
    engine.found.clear()
    world.fleet.reaches[host.id] = AWAY
    world.fleet.changed = {host.id}
    assert daemon.reconciler.run() == ""
    assert world.box(box.id).state is SandboxState.WARM
    del world.fleet.reaches[host.id]
    world.fleet.changed = {host.id}
    assert daemon.reconciler.run() == "alpha: orphans=0 broken=1"


def test_a_host_that_is_down_does_not_keep_the_others_from_being_reconciled(
    world: World, daemon: Daemon
) -> None:
    down, sound = remote(world, "alpha"), remote(world, "beta")
    world.engines.special[down.id] = EngineThatIsDown()
    orphan(world, sound)
    world.fleet.changed = {down.id, sound.id}
    assert daemon.reconciler.run() == "beta: orphans=1 broken=0"
