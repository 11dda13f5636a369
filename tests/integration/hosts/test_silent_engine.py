"""Three hosts, and the Docker of one accepts each call and never answers: nobody else waits for it.

The daemon's loops run pass by pass in one thread, as they are. The links say that all three hosts
answer: nobody has noticed yet.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.adapters.docker.engine import DockerEngine
from orchestrator.adapters.docker.flags import SandboxLimits
from orchestrator.domain import ids
from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.pool.sandbox_diagnosis import Container
from orchestrator.domain.sessions.session import Phase, Session, SessionState
from orchestrator.loops import passes
from orchestrator.loops.cpu_limiter import CpuLimiter
from orchestrator.loops.engine_calls import EngineCalls
from orchestrator.loops.host_passes import HostPasses
from orchestrator.loops.reconciler import Reconciler
from orchestrator.services.agents import inbox
from tests.fakes.engine import EngineInMemory
from tests.fakes.fleet import ImagePushesInMemory
from tests.unit.services.world import World

_DEADLINE_S = 60.0  # some of what is waited for comes when a call to the silent engine gives up
_WITH_AGENT = (SandboxState.CREATING, SandboxState.WARM, SandboxState.CLAIMED)


class SilentSocket:
    """A UNIX socket that accepts connections and never answers."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._connections: list[socket.socket] = []
        self.asked = threading.Semaphore(0)  # once for each connection
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self._connections.append(self._listener.accept()[0])
            except OSError:
                return
            self.asked.release()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()


@dataclass(kw_only=True)
class Pool:
    """A host whose engine is silent, and two good ones with an engine each."""

    world: World
    loops: Sequence[passes.LoopSpec]
    silent: Host
    good: Sequence[Host]
    socket: SilentSocket

    def engine(self, host: Host) -> EngineInMemory:
        engine = self.world.engines.special[host.id]
        assert isinstance(engine, EngineInMemory)
        return engine

    def turn(self) -> None:
        """One pass of every loop, one look at each nudged session, one call of each agent."""
        for loop in self.loops:
            loop.run()
        nudged, self.world.queue.nudges = self.world.queue.nudges, []
        for session_id in dict.fromkeys(session_id for session_id, _ in nudged):
            self.world.converge(self.world.session(session_id))
        running = {
            container.sandbox_id
            for host in self.good
            for container in self.engine(host).containers()
            if container.running
        }
        for sandbox in self.world.sandboxes(*_WITH_AGENT):
            if sandbox.id in running:
                inbox.visit(self.world.deps, sandbox.id, "")
        self.world.clock.advance(1)

    def turn_until(self, condition: Callable[[], bool]) -> None:
        waiting, waited_s = threading.Event(), 0.0
        while not condition():
            assert waited_s < _DEADLINE_S
            self.turn()
            waiting.wait(0.05)
            waited_s += 0.05


@pytest.fixture
def pool(world: World, tmp_path: Path) -> Iterator[Pool]:
    silent_socket = SilentSocket(tmp_path / "silent.sock")
    hosts = [
        world.add_host(name=name, slots=9, publish_address=f"10.0.0.{number}")
        for number, name in enumerate(("silent", "alpha", "beta"))
    ]
    silent, *good = hosts
    world.engines.special = {host.id: EngineInMemory() for host in good}
    engine = DockerEngine(f"unix://{tmp_path / 'silent.sock'}", SandboxLimits(instance="test"))
    world.engines.special[silent.id] = engine
    world.fleet.containers_of[silent.id] = []  # what its events told, before it fell silent
    calls = EngineCalls(world.deps)
    loops = passes.loop_specs(
        world.deps,
        world.proxy,
        HostPasses(world.deps, world.fleet, ImagePushesInMemory()),
        Reconciler(world.deps, world.fleet, calls),
        calls,
        CpuLimiter(world.deps),
        warn=lambda _: None,
        on_due=world.overdue.append,
    )
    try:
        yield Pool(world=world, loops=loops, silent=silent, good=good, socket=silent_socket)
    finally:
        silent_socket.close()
        engine.close()


def make_ready(pool: Pool, session: Session) -> None:
    world = pool.world
    pool.turn_until(lambda: world.state(session) is SessionState.PROVISIONING)
    pool.turn_until(lambda: world.report(session, Phase.READY))
    pool.turn_until(lambda: world.state(session) is SessionState.READY)


def test_a_session_is_ready_on_another_host_and_expires(pool: Pool) -> None:
    world = pool.world
    pool.turn_until(lambda: bool(world.store.sandboxes.warm_counts()))
    session = world.create_session(ttl_s=600)
    make_ready(pool, session)
    assert world.host_of(session).id != pool.silent.id
    assert pool.socket.asked.acquire(timeout=_DEADLINE_S)
    world.clock.advance(600)
    pool.turn_until(lambda: world.state(session) is SessionState.DESTROYED)


def test_the_warm_pool_is_filled_on_the_other_hosts(pool: Pool) -> None:
    target = pool.world.policy.warm_target
    pool.turn_until(lambda: sum(pool.world.store.sandboxes.warm_counts().values()) == target)


def test_orphans_and_crashes_of_other_hosts_are_noticed(pool: Pool) -> None:
    world = pool.world
    pool.turn_until(lambda: len(world.sandboxes(SandboxState.WARM)) > 1)
    orphan = ids.new_sandbox_id()
    other_orphan = Container(id="c1", sandbox_id=ids.new_sandbox_id(), running=True)
    world.fleet.containers_of[pool.silent.id] = [other_orphan]
    pool.engine(pool.good[0]).add(orphan)
    crashed = world.sandboxes(SandboxState.WARM)[0]
    pool.engine(world.store.hosts.get(crashed.host_id)).crash(crashed.id)
    world.fleet.changed = {host.id for host in world.store.hosts.list()}
    pool.turn_until(lambda: orphan in pool.engine(pool.good[0]).removed)
    pool.turn_until(lambda: world.sandbox(crashed.id).state is SandboxState.GONE)


def test_other_hosts_are_fenced_measured_admitted_drained_and_removed(pool: Pool) -> None:
    world = pool.world
    alpha, beta = pool.good
    pool.turn()
    fenced = pool.engine(alpha).prepare_count
    world.image = "spawnai/sandbox:next"
    pool.engine(alpha).images.add(world.image)
    pool.turn_until(lambda: pool.engine(alpha).prepare_count > fenced)
    pool.turn_until(lambda: world.store.hosts.get(alpha.id).image == world.image)
    joining = world.add_host(name="joining", publish_address="10.0.0.9", state=HostState.JOINING)
    world.engines.special[joining.id] = EngineInMemory()
    pool.turn_until(lambda: world.store.hosts.get(joining.id).state is HostState.UP)
    world.store.hosts.change(beta.id, lambda host: replace(host, drain=Drain.LEAVE))
    pool.turn_until(lambda: beta.id not in {host.id for host in world.store.hosts.list()})
