"""The ports loop: an app is READY only while its published port can be reached."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pytest

from orchestrator.domain.ids import SandboxId, UserId
from orchestrator.domain.people.access import Principal
from orchestrator.domain.pool.host import Host, HostState
from orchestrator.domain.pool.published_ports import Endpoint, PortAnswer
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import Tier
from orchestrator.loops.loop import LoopSpec
from orchestrator.services.pool import claims
from tests.fakes.engine import EngineInMemory
from tests.unit.loops.running import loop_specs
from tests.unit.services.world import World

REFUSED, SILENT, MUTE = PortAnswer.REFUSED, PortAnswer.SILENT, PortAnswer.MUTE
UNREACHABLE = "its published port refuses connections"


class Daemon:
    """The passes of one daemon, every two seconds. Its agents are always heard."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.specs = {spec.name: spec for spec in loop_specs(world)}

    def run(self, seconds: int, *others: str) -> None:
        """Run the ports loop, and the loops of these names, for that long."""
        passes: list[LoopSpec] = [self.specs[name] for name in ("ports", *others)]
        for _ in range(0, seconds, 2):
            self.world.clock.advance(2)
            for spec in passes:
                spec.run()


@pytest.fixture
def daemon(world: World) -> Daemon:
    world.add_host(slots=20)
    return Daemon(world)


def endpoint_of(world: World, sandbox: Sandbox) -> Endpoint:
    return world.store.hosts.get(sandbox.host_id).publish_address, sandbox.port


def close(world: World, sandboxes: Iterable[Sandbox], answer: PortAnswer | None = REFUSED) -> None:
    for sandbox in sandboxes:
        world.port_looks.answers[endpoint_of(world, sandbox)] = answer


def user(number: int) -> Principal:
    return Principal(user_id=UserId(f"usr_{number:026}"), tier=Tier.FREE)


def ids_of(sandboxes: Iterable[Sandbox]) -> set[SandboxId]:
    return {sandbox.id for sandbox in sandboxes}


def broken(world: World) -> Collection[Sandbox]:
    return world.sandboxes(SandboxState.BROKEN)


def test_an_app_whose_port_refuses_starts_again_in_another_sandbox(
    world: World, daemon: Daemon
) -> None:
    for _ in range(4):
        world.add_warm_sandbox()
    session, other = (world.run_session(world.create_session()) for _ in range(2))
    daemon.run(10)
    dead, untouched = world.sandbox_of(session), world.sandbox_of(other)
    close(world, [dead])
    daemon.run(16)
    assert world.sandbox(dead.id).state is SandboxState.BROKEN
    assert world.sandbox(dead.id).reason == UNREACHABLE
    world.settle(session, rounds=2)
    assert world.sandbox_of(session).id != dead.id
    assert len(world.session(session).crashes) == 1, "so that no loop arises"
    assert world.sandbox_of(other) == untouched
    (line,) = world.store.logs.tail(session.id, 9)
    assert UNREACHABLE in line.text


def test_a_port_that_refuses_once_or_twice_is_left_alone(world: World, daemon: Daemon) -> None:
    sandboxes = [world.add_warm_sandbox() for _ in range(4)]
    daemon.run(10)
    for _ in range(20):
        close(world, sandboxes[:1])
        daemon.run(4)
        world.port_looks.answers.clear()
        daemon.run(6)
    assert broken(world) == []


def test_no_session_gets_a_warm_sandbox_whose_port_is_dead(world: World, daemon: Daemon) -> None:
    dead, *_ = [world.add_warm_sandbox() for _ in range(4)]
    daemon.run(10)
    close(world, [dead])
    daemon.run(16)
    assert [sandbox.id for sandbox in broken(world)] == [dead.id]


@pytest.mark.parametrize("answer", [REFUSED, SILENT])
@pytest.mark.parametrize(("failing", "count"), [(3, 3), (8, 8), (3, 8)])
def test_what_cannot_be_reached_together_is_not_destroyed_and_its_host_gets_no_more(
    world: World, daemon: Daemon, answer: PortAnswer, failing: int, count: int
) -> None:
    sandboxes = [world.add_warm_sandbox() for _ in range(count)]
    daemon.run(10)
    close(world, sandboxes[:failing], answer)
    daemon.run(300, "links")
    assert broken(world) == []
    (host,) = world.store.hosts.list()
    assert host.state is HostState.SUSPECT
    assert f"{failing} of {count} published ports" in host.reason
    world.port_looks.answers.clear()
    daemon.run(10, "links")
    assert world.store.hosts.get(host.id).state is HostState.UP


def test_ports_that_fail_one_after_the_other_are_spared_from_the_third_on(
    world: World, daemon: Daemon
) -> None:
    """All are looked at again before one is given up."""
    sandboxes = [world.add_warm_sandbox() for _ in range(8)]
    for sandbox in sandboxes:
        daemon.run(2)
        close(world, [sandbox])
    daemon.run(60)
    assert len(broken(world)) <= 2


def test_the_ports_of_one_user_count_once(world: World, daemon: Daemon) -> None:
    for _ in range(8):
        world.add_warm_sandbox()
    sessions = [world.run_session(world.create_session()) for _ in range(4)]
    daemon.run(10)
    close(world, [world.sandbox_of(session) for session in sessions])
    daemon.run(16)
    assert len(broken(world)) == 4


def test_a_port_that_hangs_is_given_up_only_if_others_of_its_host_answer(
    world: World, daemon: Daemon
) -> None:
    sandboxes = [world.add_warm_sandbox() for _ in range(2)]
    daemon.run(10)
    close(world, sandboxes, SILENT)
    daemon.run(300, "links")
    assert broken(world) == []
    assert world.store.hosts.list()[0].state is HostState.SUSPECT
    world.port_looks.answers.pop(endpoint_of(world, sandboxes[1]))
    daemon.run(90, "links")
    assert [sandbox.id for sandbox in broken(world)] == [sandboxes[0].id]


def test_a_port_that_hangs_for_less_than_75_s_is_left_alone(world: World, daemon: Daemon) -> None:
    sandboxes = [world.add_warm_sandbox() for _ in range(4)]
    daemon.run(10)
    close(world, sandboxes[:1], SILENT)
    daemon.run(70)
    assert broken(world) == []


def test_ports_that_die_together_are_replaced_one_by_one_if_their_host_confirms_it(
    world: World, daemon: Daemon
) -> None:
    """All docker-proxy processes ended, say, and new ones work."""
    for _ in range(8):
        world.add_warm_sandbox()
    sessions = [world.run_session(world.create_session(user(n))) for n in range(4)]
    daemon.run(10)
    apps, dead = [world.sandbox_of(session) for session in sessions], world.sandboxes()
    close(world, dead)
    world.engine.unpublished = {sandbox.id for sandbox in dead}
    daemon.run(10, "links")
    assert {sandbox.id for sandbox in broken(world)} == {sandbox.id for sandbox in dead} - {
        app.id for app in apps
    }, "first those that nobody misses"
    for count in range(1, 5):
        daemon.run(30, "links")
        assert len({app.id for app in apps} & ids_of(broken(world))) == count - 1
        world.add_warm_sandbox()
        daemon.run(10, "links")
        assert len({app.id for app in apps} & ids_of(broken(world))) == count, "a new port works"
    (host,) = world.store.hosts.list()
    assert host.state is HostState.UP


def test_apps_are_left_alone_if_a_new_port_of_their_host_is_dead_too(
    world: World, daemon: Daemon
) -> None:
    for _ in range(4):
        world.add_warm_sandbox()
    sessions = [world.run_session(world.create_session(user(n))) for n in range(3)]
    daemon.run(10)
    dead = world.sandboxes()
    close(world, dead)
    world.engine.unpublished = {sandbox.id for sandbox in dead}
    daemon.run(10, "links")
    new = world.add_warm_sandbox()
    close(world, [new])
    world.engine.unpublished.add(new.id)
    daemon.run(70, "links")
    assert ids_of(broken(world)).isdisjoint(world.sandbox_of(session).id for session in sessions)
    assert world.store.hosts.list()[0].state is HostState.SUSPECT


def test_a_host_whose_new_port_was_dead_is_tried_again_with_a_warm_sandbox(
    world: World, daemon: Daemon
) -> None:
    """That port may have been published before the others died, and never been looked at."""
    warm = [world.add_warm_sandbox() for _ in range(4)]
    daemon.run(10)
    close(world, warm)
    world.engine.unpublished = ids_of(warm)
    daemon.run(10, "links")
    new = world.add_warm_sandbox()
    close(world, [new])
    world.engine.unpublished.add(new.id)
    daemon.run(30, "links")
    (host,) = world.store.hosts.list()
    assert host.state is HostState.SUSPECT
    assert world.sandbox(new.id).state is SandboxState.WARM
    daemon.run(90, "links")
    assert world.sandbox(new.id).state is SandboxState.BROKEN
    assert world.store.hosts.get(host.id).state is HostState.UP


def test_a_new_sandbox_that_is_busy_stops_no_replacement(world: World, daemon: Daemon) -> None:
    sandboxes = [world.add_warm_sandbox() for _ in range(3)]
    daemon.run(10)
    close(world, sandboxes[:1])
    daemon.run(16)
    assert ids_of(broken(world)) == {sandboxes[0].id}
    close(world, [world.add_warm_sandbox()], MUTE)
    daemon.run(30, "links")
    assert world.store.hosts.list()[0].state is HostState.UP


def test_one_app_after_the_other_is_replaced_even_if_no_new_port_shows_up(
    world: World, daemon: Daemon
) -> None:
    sessions = [world.run_session(world.create_session(user(n))) for n in range(3)]
    daemon.run(10)
    close(world, world.sandboxes())
    world.engine.unpublished = ids_of(world.sandboxes())
    daemon.run(10, "links")
    assert len(broken(world)) == 1
    daemon.run(70, "links")
    assert len(broken(world)) == 1
    daemon.run(10, "links")
    assert len(broken(world)) == 2
    assert len(sessions) == 3


@pytest.mark.parametrize("others", [0, 4])
def test_a_port_that_passes_nothing_on_is_given_up_after_75_s(
    world: World, daemon: Daemon, others: int
) -> None:
    """Its docker-proxy hangs. The kernel goes on to accept connections for it."""
    for _ in range(others):
        world.add_warm_sandbox()
    session = world.run_session(world.create_session())
    daemon.run(10)
    dead = world.sandbox_of(session)
    close(world, [dead], MUTE)
    world.engine.unpublished = {dead.id}
    daemon.run(74, "links")
    assert broken(world) == []
    daemon.run(20, "links")
    assert [sandbox.id for sandbox in broken(world)] == [dead.id]
    assert "passes nothing on" in world.sandbox(dead.id).reason
    assert world.host_of(session).state is HostState.UP


def test_busy_apps_are_left_alone_and_no_reason_to_blame_their_host(
    world: World, daemon: Daemon
) -> None:
    """They don't answer their host either."""
    sandboxes = [world.add_warm_sandbox() for _ in range(4)]
    daemon.run(10)
    for count in (1, 4):
        close(world, sandboxes[:count], MUTE)
        daemon.run(300, "links")
        assert broken(world) == []
        assert world.store.hosts.list()[0].state is HostState.UP


def test_the_host_of_a_new_warm_sandbox_that_never_answered_gets_no_more(
    world: World, daemon: Daemon
) -> None:
    """Its firewall is closed, say: the next sandbox would fare no better."""
    warm = world.add_warm_sandbox()
    close(world, [warm], SILENT)
    daemon.run(60, "links")
    assert broken(world) == []
    assert world.store.hosts.list()[0].state is HostState.SUSPECT


def test_what_we_could_not_even_try_proves_nothing(world: World, daemon: Daemon) -> None:
    sandboxes = [world.add_warm_sandbox() for _ in range(4)]
    daemon.run(10)
    close(world, sandboxes[:1])
    close(world, sandboxes[1:], answer=None)
    daemon.run(60)
    assert broken(world) == []


def test_refusals_before_the_host_came_up_do_not_count(world: World, daemon: Daemon) -> None:
    """Docker restarts: its ports are closed until it answers again."""
    (host,) = world.store.hosts.list()
    sandboxes = [world.add_warm_sandbox() for _ in range(2)]
    daemon.run(10)
    claims.mark_suspect(world.deps, host.id, "no answer")
    close(world, sandboxes)
    daemon.run(14)
    world.clock.advance(1)
    now = world.clock.now()
    world.store.hosts.change(host.id, lambda host: host.transition(HostState.UP, now, ""))
    daemon.run(4)
    assert broken(world) == []


@pytest.fixture
def two_hosts(world: World, daemon: Daemon) -> list[Host]:
    first = world.store.hosts.list()[0]
    second = world.add_host(slots=20, publish_address="10.0.0.9")
    world.engines.special[second.id] = EngineInMemory()
    return [first, second]


def test_one_dead_port_recovers_while_all_of_another_host_hang(
    world: World, daemon: Daemon, two_hosts: list[Host]
) -> None:
    sandboxes = [world.add_warm_sandbox() for _ in range(24)]
    by_host = {host.id: [s for s in sandboxes if s.host_id == host.id] for host in two_hosts}
    few, many = sorted(by_host.values(), key=len)
    daemon.run(10)
    close(world, few[:3], SILENT)
    close(world, many[:1])
    daemon.run(30)
    assert [sandbox.id for sandbox in broken(world)] == [many[0].id]


def test_when_no_host_can_be_reached_nothing_is_destroyed(
    world: World, daemon: Daemon, two_hosts: list[Host]
) -> None:
    sandboxes = [world.add_warm_sandbox() for _ in range(6)]
    daemon.run(10)
    close(world, sandboxes)
    daemon.run(300, "links")
    assert broken(world) == []
    assert {host.state for host in world.store.hosts.list()} == {HostState.SUSPECT}


def test_each_port_is_looked_at_within_some_seconds_and_not_at_each_pass(
    world: World, daemon: Daemon
) -> None:
    sandbox = world.add_warm_sandbox()
    daemon.run(60)
    looks = world.port_looks.looks.count(endpoint_of(world, sandbox))
    assert 8 <= looks <= 12


def test_a_host_that_is_set_aside_already_is_not_written_again(
    world: World, daemon: Daemon
) -> None:
    close(world, [world.add_warm_sandbox() for _ in range(4)])
    daemon.run(20)
    sent = len(world.events.sent)
    daemon.run(20)
    assert world.events.sent[sent:] == []
