"""Passes over the hosts: links, admission, measuring, drains, fences, reconciling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain import ids
from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.domain.pool.host_liveness import LinkState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import SessionState
from orchestrator.loops.engine_calls import EngineCalls
from orchestrator.loops.host_passes import HostPasses
from orchestrator.loops.reconciler import Reconciler
from tests.fakes import samples
from tests.fakes.engine import EngineInMemory, EngineThatIsDown, EngineWithStaleListing
from tests.fakes.fleet import ImagePushesInMemory
from tests.fakes.memory import remembers
from tests.fakes.samples import NOW
from tests.fakes.threads import run_at_once
from tests.unit.services.world import World

AWAY = LinkState(up=False, since=NOW, reason="no route to host")
NEXT = "spawnai/sandbox:next"


class Daemon:
    """The passes of one daemon, and the inventories that it wrote."""

    def __init__(self, world: World) -> None:
        self.images = ImagePushesInMemory()
        self.inventories: list[list[str]] = []
        self.hosts = HostPasses(
            world.deps, world.fleet, self.images, self._write_inventory, spawn=run_at_once
        )
        calls = EngineCalls(world.deps, run_at_once)
        self.reconciler = Reconciler(world.deps, world.fleet, calls, spawn=run_at_once)

    def _write_inventory(self, hosts: Sequence[Host]) -> None:
        self.inventories.append([f"{host.name} {host.state}" for host in hosts])


@pytest.fixture
def daemon(world: World) -> Daemon:
    return Daemon(world)


def remote(world: World, name: str, **changes: Any) -> Host:
    """A host over SSH with an engine of its own. Hosts are listed in the order of these calls."""
    number = len(world.store.hosts.list()) + 1
    host = world.add_host(
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


# Links and admissions


def test_every_living_sandbox_is_offered_a_socket_and_no_other_one(
    world: World, daemon: Daemon
) -> None:
    remote(world, "alpha", slots=2)
    sandboxes = [world.add_warm_sandbox() for _ in range(2)]
    world.fleet.offered = {sandboxes[0].id, ids.new_sandbox_id()}  # the latter is gone
    daemon.hosts.update_links()
    assert world.fleet.offered == {sandbox.id for sandbox in sandboxes}


def test_a_host_that_joins_is_linked_admitted_and_written_to_the_inventory(
    world: World, daemon: Daemon
) -> None:
    host = remote(world, "alpha", state=HostState.JOINING, reason="it was just added")
    assert daemon.hosts.update_links() == ""
    assert [host.name for host in world.fleet.hosts] == ["alpha"]
    assert state(world, host) is HostState.UP
    daemon.hosts.update_links()
    assert daemon.inventories == [["alpha joining"], ["alpha up"]]
    daemon.hosts.update_links()
    assert len(daemon.inventories) == 2, "an unchanged inventory is not written again"


def test_nothing_is_kept_of_an_engine_whose_host_has_left(world: World, daemon: Daemon) -> None:
    host, leaving = remote(world, "alpha"), remote(world, "beta")
    daemon.hosts.update_links()
    assert world.engines.kept == {host.id, leaving.id}
    world.store.hosts.remove(leaving.id)
    daemon.hosts.update_links()
    assert world.engines.kept == {host.id}


def test_a_host_whose_link_state_is_unknown_stays_as_it_is(world: World, daemon: Daemon) -> None:
    """After our own start a host may have been unseen for long. That is not its fault."""
    up = remote(world, "alpha", seen_at=samples.later(-9999))
    joining = remote(world, "beta", state=HostState.JOINING)
    world.fleet.link_states = {up.id: None, joining.id: None}
    for _ in range(3):
        assert daemon.hosts.update_links() == ""
        world.clock.advance(60)
    assert world.store.hosts.list() == [up, joining]


def test_the_summary_names_a_host_that_changed_and_the_reason(world: World, daemon: Daemon) -> None:
    remote(world, "alpha")
    beta = remote(world, "beta")
    world.fleet.link_states[beta.id] = AWAY
    assert daemon.hosts.update_links() == "beta: up -> suspect no route to host"
    assert daemon.hosts.update_links() == ""
    world.clock.advance(15)
    assert daemon.hosts.update_links() == "beta: suspect -> lost no route to host"
    del world.fleet.link_states[beta.id]
    assert daemon.hosts.update_links() == "beta: lost -> joining it is back, and being swept"
    assert state(world, beta) is HostState.UP, "swept and fit"


def test_an_unreachable_host_is_not_admitted(world: World, daemon: Daemon) -> None:
    host = remote(world, "alpha", state=HostState.JOINING)
    world.fleet.link_states[host.id] = AWAY
    daemon.hosts.update_links()
    engine = world.engines.special[host.id]
    assert isinstance(engine, EngineInMemory)
    assert engine.prepare_count == 0


def test_an_image_is_pushed_to_remote_hosts_that_answer_and_lack_it(
    world: World, daemon: Daemon
) -> None:
    world.add_host(name="here", image="")
    remote(world, "has it")
    remote(world, "has an older one", image="spawnai/sandbox:old")
    away = remote(world, "away", image="")
    world.fleet.link_states[away.id] = AWAY
    new = remote(world, "new", image="", state=HostState.JOINING)
    engine = world.engines.special[new.id]
    assert isinstance(engine, EngineInMemory)
    engine.images.clear()
    daemon.hosts.update_links()
    assert daemon.images.requests == [["has an older one", "new"]]
    assert "is on its way there" in world.store.hosts.get(new.id).reason

    engine.images.add(samples.IMAGE)
    daemon.hosts.update_links()
    assert state(world, new) is HostState.UP


def test_a_host_that_leaves_is_not_admitted_again(world: World, daemon: Daemon) -> None:
    host = remote(world, "alpha", state=HostState.SUSPECT, drain=Drain.LEAVE)
    daemon.hosts.update_links()
    assert state(world, host) is HostState.SUSPECT


# Refreshes


def test_each_host_that_is_up_is_measured_every_ten_seconds(world: World, daemon: Daemon) -> None:
    remote(world, "alpha")
    remote(world, "beta", state=HostState.SUSPECT)
    for _ in range(5):
        daemon.hosts.refresh()
        world.clock.advance(5)
    assert [name for name, _ in world.fleet.commands] == ["alpha"] * 3


def test_the_more_hosts_there_are_the_less_often_each_is_measured(
    world: World, daemon: Daemon
) -> None:
    for number in range(400):
        world.add_host(name=f"host-{number}", created_at=NOW)
    daemon.hosts.refresh()
    assert len(world.fleet.commands) == 400
    world.clock.advance(19)
    daemon.hosts.refresh()
    assert len(world.fleet.commands) == 400
    world.clock.advance(1)
    daemon.hosts.refresh()
    assert len(world.fleet.commands) == 800


def test_a_host_that_can_not_be_measured_delays_no_other(world: World, daemon: Daemon) -> None:
    alpha, beta = remote(world, "alpha"), remote(world, "beta")
    world.engines.special[alpha.id] = EngineThatIsDown()
    world.image = NEXT
    for host in (alpha, beta):
        world.engines.special[host.id].images.add(NEXT)  # type: ignore[attr-defined]
    daemon.hosts.refresh()
    assert world.store.hosts.get(alpha.id).image == samples.IMAGE
    assert world.store.hosts.get(beta.id).image == NEXT


# Drains


def test_a_drain_goes_on_pass_by_pass(world: World, daemon: Daemon) -> None:
    host = world.add_host(name="alpha", slots=9)
    ready = world.run_session(world.create_session())
    world.add_warm_sandbox()
    remote(world, "beta")
    assert daemon.hosts.drain() == ""
    world.store.hosts.change(host.id, lambda host: replace(host, drain=Drain.MOVE))
    assert daemon.hosts.drain() == "alpha: 2"
    assert daemon.hosts.drain() == ""
    assert world.queue.nudged[-1] == ready.id
    assert world.state(ready) is SessionState.READY


def test_a_host_that_leaves_is_deleted_once_it_is_empty(world: World, daemon: Daemon) -> None:
    remote(world, "alpha", drain=Drain.LEAVE)
    assert daemon.hosts.drain() == ""
    assert daemon.hosts.drain() == "alpha: has left"
    assert world.store.hosts.list() == []


def test_a_host_that_can_not_be_cleared_yet_delays_no_other(world: World, daemon: Daemon) -> None:
    stuck = remote(world, "alpha", drain=Drain.LEAVE)
    world.engines.special[stuck.id] = EngineThatIsDown()
    remote(world, "beta", drain=Drain.LEAVE)
    daemon.hosts.drain()
    assert daemon.hosts.drain() == "beta: has left"
    assert [host.name for host in world.store.hosts.list()] == ["alpha"]


# Fences


def test_a_check_warns_of_all_missing_fences(world: World, daemon: Daemon) -> None:
    warnings: list[Sequence[str]] = []
    world.add_host(name="alpha")
    down = remote(world, "beta")
    world.engines.special[down.id] = EngineThatIsDown()
    remote(world, "gamma", state=HostState.SUSPECT)
    world.engine.warnings = ["iptables is missing"]
    for _ in range(2):
        assert daemon.hosts.check_fences(warnings.append) == "alpha: iptables is missing"
        world.clock.advance(30)
    assert warnings == [["alpha: iptables is missing"]], "it is written once"
    world.engine.warnings = []
    assert daemon.hosts.check_fences(warnings.append) == ""
    assert warnings[-1] == [], "an old warning has to disappear"


# What has left


def test_a_host_that_has_left_is_forgotten(world: World, daemon: Daemon) -> None:
    world.add_host(name="alpha")
    beta = remote(world, "beta")
    world.engine.warnings = ["iptables is missing"]
    world.fleet.changed = {beta.id}
    passes = (
        daemon.hosts.update_links,
        daemon.hosts.refresh,
        daemon.hosts.check_ports,
        daemon.hosts.drain,
        lambda: daemon.hosts.check_fences(lambda _: None),
        daemon.reconciler.run,
    )
    for run in passes:
        run()
    world.fleet.changed = {beta.id}  # its link ends
    world.store.hosts.remove(beta.id)
    for run in passes:
        run()
    others = (world, world.store, world.fleet, world.engines, daemon.images)
    for holder in (daemon.hosts, daemon.reconciler):
        assert not remembers(holder, beta.id, beside=others)


# Reconciling


def add_orphan(world: World, host: Host) -> None:
    engine = world.engines.for_host(host)
    assert isinstance(engine, EngineInMemory)
    engine.add(ids.new_sandbox_id())


def test_a_host_whose_containers_changed_is_compared_at_once(world: World, daemon: Daemon) -> None:
    hosts = [remote(world, f"host-{number}") for number in range(3)]
    daemon.reconciler.run()
    for host in hosts:
        add_orphan(world, host)
    world.fleet.changed = {hosts[2].id}
    assert daemon.reconciler.run() == "host-1: orphans=1 broken=0; host-2: orphans=1 broken=0"
    assert daemon.reconciler.run() == "", "host-0 has to wait for its turn"


def test_a_change_during_the_comparison_of_its_host_is_not_forgotten(
    world: World, daemon: Daemon
) -> None:
    host = remote(world, "alpha")
    summaries: list[str] = []

    def meanwhile() -> None:
        add_orphan(world, host)
        world.fleet.changed = {host.id}
        summaries.append(daemon.reconciler.run())

    world.engines.special[host.id] = EngineWithStaleListing(meanwhile)
    summaries.append(daemon.reconciler.run())
    summaries.append(daemon.reconciler.run())
    assert summaries == ["", "", "alpha: orphans=1 broken=0"]


def test_a_host_with_an_uncertain_difference_is_compared_again(
    world: World, daemon: Daemon
) -> None:
    host = remote(world, "alpha")
    daemon.reconciler.run()
    sandbox = world.add_warm_sandbox()
    engine = world.engines.for_host(host)
    assert isinstance(engine, EngineInMemory)
    container = engine.containers_by_sandbox.pop(sandbox.id)
    world.engines.special[host.id] = stale_listing = EngineWithStaleListing(
        lambda: stale_listing.containers_by_sandbox.update({sandbox.id: container})
    )
    world.fleet.changed = {host.id}
    assert daemon.reconciler.run() == ""
    stale_listing.containers_by_sandbox.clear()
    assert daemon.reconciler.run() == "alpha: orphans=0 broken=1"


def test_every_host_is_compared_within_ten_passes(world: World, daemon: Daemon) -> None:
    hosts = [remote(world, f"host-{number:02}") for number in range(23)]
    for host in hosts:
        add_orphan(world, host)
    summaries = [daemon.reconciler.run() for _ in range(10)]
    for host in hosts:
        assert sum(f"{host.name}: orphans=1" in line for line in summaries) == 1
    assert max(line.count("orphans") for line in summaries) <= 3, "each pass has its share"


def test_unreachable_is_not_unhealthy(world: World, daemon: Daemon) -> None:
    host = remote(world, "alpha")
    sandbox = world.add_warm_sandbox()
    engine = world.engines.for_host(host)
    assert isinstance(engine, EngineInMemory)
    engine.containers_by_sandbox.clear()
    world.fleet.link_states[host.id] = AWAY
    world.fleet.changed = {host.id}
    assert daemon.reconciler.run() == ""
    assert world.sandbox(sandbox.id).state is SandboxState.WARM
    del world.fleet.link_states[host.id]
    world.fleet.changed = {host.id}
    assert daemon.reconciler.run() == "alpha: orphans=0 broken=1"


def test_a_host_that_is_down_does_not_delay_the_reconciling_of_others(
    world: World, daemon: Daemon
) -> None:
    down, sound = remote(world, "alpha"), remote(world, "beta")
    world.engines.special[down.id] = EngineThatIsDown()
    add_orphan(world, sound)
    world.fleet.changed = {down.id, sound.id}
    assert daemon.reconciler.run() == "beta: orphans=1 broken=0"


# Hosts that lose sandboxes


def set_aside(world: World, host: Host) -> None:
    """As services.pool.host_losses does it, for 5 s."""
    now = world.clock.now()
    world.store.hosts.change(
        host.id,
        lambda host: replace(
            host.transition(HostState.SUSPECT, now, "it loses sandboxes"),
            losses=host.losses.set_aside(now),
        ),
    )


def test_a_host_that_lost_sandboxes_is_admitted_after_its_pause(
    world: World, daemon: Daemon
) -> None:
    bad, _ = remote(world, "bad"), remote(world, "good")
    set_aside(world, bad)
    world.clock.advance(4.9)
    daemon.hosts.update_links()
    assert state(world, bad) is HostState.SUSPECT
    assert world.store.hosts.get(bad.id).reason == "it loses sandboxes"
    world.clock.advance(0.1)
    daemon.hosts.update_links()
    assert state(world, bad) is HostState.UP


def test_a_host_that_lost_sandboxes_is_admitted_at_once_if_it_is_the_last(
    world: World, daemon: Daemon
) -> None:
    bad, good = remote(world, "bad"), remote(world, "good")
    set_aside(world, bad)
    world.store.hosts.change(good.id, lambda host: replace(host, cordoned=True))
    daemon.hosts.update_links()
    assert state(world, bad) is HostState.UP
