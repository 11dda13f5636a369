"""An engine that hangs for some sandboxes holds up no session but theirs. With real threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SandboxId, SessionId
from orchestrator.domain.pool.host import HostState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.priority import Queue
from orchestrator.domain.sessions.session import Phase, Session, SessionState
from orchestrator.loops import passes
from orchestrator.loops.cpu_limiter import CpuLimiter
from orchestrator.loops.engine_calls import EngineCalls
from orchestrator.loops.host_passes import HostPasses
from orchestrator.loops.loop import LoopSpec
from orchestrator.loops.reconciler import Reconciler
from orchestrator.ports import SandboxSpec
from orchestrator.services.agents import inbox
from orchestrator.services.pool import claims
from tests.fakes.engine import EngineInMemory, EngineThatHangs
from tests.fakes.fleet import ImagePushesInMemory
from tests.fakes.threads import wait_until
from tests.unit.services.world import World

WORKERS = 2
DEADLINE_S = 20.0


class Installation:
    """Two workers that empty the queues in their order, and the daemon's loops, pass by pass."""

    def __init__(self, world: World, engine: EngineThatHangs) -> None:
        self.world = world
        self.engine = engine
        self.workers = ThreadPoolExecutor(WORKERS)
        calls = EngineCalls(world.deps)
        hosts = HostPasses(world.deps, world.fleet, ImagePushesInMemory())
        reconciler = Reconciler(world.deps, world.fleet, calls)
        specs = passes.loop_specs(
            world.deps,
            world.proxy,
            hosts,
            reconciler,
            calls,
            CpuLimiter(world.deps),
            warn=lambda _: None,
            on_due=world.overdue.append,
        )
        self.loops: dict[str, LoopSpec] = {spec.name: spec for spec in specs}

    def work(self) -> None:
        """Let the workers empty the queues. Fails if a step blocks them."""
        nudges, self.world.queue.nudges = self.world.queue.nudges, []
        order = sorted(dict.fromkeys(nudges), key=lambda nudge: list(Queue).index(nudge[1]))
        jobs = [self.workers.submit(self._converge, session_id) for session_id, _ in order]
        _, blocked = wait_for(jobs, timeout=DEADLINE_S)
        assert not blocked, "a step blocks the workers"

    def _converge(self, session_id: SessionId) -> None:
        self.world.converge(self.world.session(session_id))

    def place(self, sessions: Sequence[Session]) -> bool:
        """Let the workers look again. Whether each session has a sandbox: two workers that place at
        once may get into each other's way."""
        self.world.clock.advance(1)
        self.run_daemon("nudge")
        self.work()
        return all(self.world.session(session).sandbox_id for session in sessions)

    def run_daemon(self, *names: str) -> None:
        for name in names:
            self.loops[name].run()

    def make_ready(self, session: Session) -> None:
        self.work()
        sandbox = self.world.sandbox_of(session)
        inbox.visit(self.world.deps, sandbox.id, "")
        self.world.report(session, Phase.READY)
        self.run_daemon("publish")
        self.world.walk(session)
        self.work()
        assert self.world.state(session) is SessionState.READY


@pytest.fixture
def installation(world: World) -> Iterator[Installation]:
    world.engine = engine = EngineThatHangs()
    installation = Installation(world, engine)
    try:
        yield installation
    finally:
        engine.released.set()
        installation.workers.shutdown()


def test_sessions_become_ready_while_a_container_cannot_be_removed(
    world: World, installation: Installation
) -> None:
    world.add_host(slots=20)
    ready = world.run_session(world.create_session())
    corpse = world.sandbox_of(ready)
    for _ in range(5):
        world.add_warm_sandbox()
    installation.engine.stuck.add(corpse.id)
    world.request_end(ready)
    world.converge(ready)
    installation.run_daemon("publish", "clear")
    assert installation.engine.hanging.acquire(timeout=DEADLINE_S)

    for _ in range(4):
        newcomer = world.create_session()
        world.clock.advance(1)
        installation.run_daemon("clear", "nudge")
        installation.make_ready(newcomer)
    assert world.state(ready) is SessionState.DESTROYING

    installation.engine.released.set()
    wait_until(lambda: (ready.id, Queue.CRITICAL) in world.queue.nudges)
    installation.work()
    assert world.state(ready) is SessionState.DESTROYED
    assert world.sandbox(corpse.id).state is SandboxState.GONE


def test_a_removal_that_hangs_delays_no_other_on_its_host(
    world: World, installation: Installation
) -> None:
    world.add_host(slots=20)
    sandboxes = [world.add_warm_sandbox() for _ in range(4)]
    installation.engine.stuck.add(sandboxes[0].id)
    for sandbox in sandboxes:
        claims.retire(world.deps, sandbox, "a test said so")
    installation.run_daemon("publish", "clear")
    wait_until(lambda: len(world.sandboxes(SandboxState.STOPPING)) == 1)
    assert world.sandbox(sandboxes[0].id).state is SandboxState.STOPPING


def test_other_hosts_start_sandboxes_while_the_starts_of_one_hang(
    world: World, installation: Installation
) -> None:
    hanging = world.add_host(slots=3)
    slow = [world.create_session() for _ in range(3)]
    wait_until(lambda: installation.place(slow))
    assert {world.host_of(session).id for session in slow} == {hanging.id}
    installation.engine.stuck.update(world.sandbox_of(session).id for session in slow)
    installation.run_daemon("start")
    for _ in slow:
        assert installation.engine.hanging.acquire(timeout=DEADLINE_S)

    world.add_host(slots=2, publish_address="10.0.0.2")
    newcomer = world.create_session()
    world.clock.advance(1)
    installation.run_daemon("start", "nudge")
    installation.work()
    installation.run_daemon("start")
    wait_until(lambda: world.sandbox_of(newcomer).container_id is not None)
    installation.make_ready(newcomer)


def test_a_sandbox_that_is_being_started_is_removed_only_after_that(
    world: World, installation: Installation
) -> None:
    """Otherwise Docker would make its container after the removal."""
    world.add_host()
    session = world.create_session()
    installation.work()
    sandbox = world.sandbox_of(session)
    installation.engine.stuck.add(sandbox.id)
    installation.run_daemon("start")
    assert installation.engine.hanging.acquire(timeout=DEADLINE_S)
    world.request_end(session)
    world.converge(session)
    installation.run_daemon("publish", "clear")
    assert world.sandbox(sandbox.id).state is SandboxState.STOPPING

    installation.engine.released.set()
    wait_until(lambda: world.sandbox(sandbox.id).container_id is not None)
    wait_until(lambda: installation.run_daemon("clear") or world.sandboxes() == [])
    assert world.engine.containers_by_sandbox == {}


def test_an_orphan_that_cannot_be_removed_hides_no_other_fault_of_its_host(
    world: World, installation: Installation
) -> None:
    host = world.add_host()
    orphan = ids.new_sandbox_id()
    world.engine.add(orphan)
    sandbox = world.add_warm_sandbox()
    world.engine.crash(sandbox.id)
    installation.engine.stuck.add(orphan)
    world.fleet.changed = {host.id}
    installation.run_daemon("reconcile")
    wait_until(lambda: world.sandbox(sandbox.id).state is SandboxState.BROKEN)
    assert installation.engine.hanging.acquire(timeout=DEADLINE_S)


def test_warm_sandboxes_start_elsewhere_while_the_starts_of_one_host_hang(
    world: World, installation: Installation
) -> None:
    hanging = world.add_host(slots=9)
    placed: list[SandboxId] = []

    class EngineWhoseStartsHang(EngineThatHangs):
        def start(self, spec: SandboxSpec) -> str:
            self.stuck.add(spec.sandbox_id)
            placed.append(spec.sandbox_id)
            return super().start(spec)

    engine = EngineWhoseStartsHang()
    world.engines.special[hanging.id] = engine
    try:
        installation.run_daemon("refill")
        for _ in range(3):
            assert engine.hanging.acquire(timeout=DEADLINE_S)
        world.add_host(slots=9, publish_address="10.0.0.2")
        world.clock.advance(5)
        installation.run_daemon("refill")
        assert world.engine.containers_by_sandbox == {}, "they may yet come"
        world.clock.advance(6)
        installation.run_daemon("refill")
        wait_until(lambda: len(world.engine.containers_by_sandbox) == 3)
        assert len(placed) == 3
    finally:
        engine.released.set()


def test_hosts_that_hang_in_every_task_leave_others_their_turn(
    world: World, installation: Installation
) -> None:
    """More of them than there ever are threads."""
    released = threading.Event()

    class SilentEngine(EngineInMemory):
        def prepare(self) -> Sequence[str]:
            released.wait()
            raise errors.EngineUnavailable("no answer")

    silent = SilentEngine()
    for number in range(100):
        host = world.add_host(name=f"silent-{number}", publish_address=f"10.0.1.{number}")
        world.engines.special[host.id] = silent
    try:
        installation.run_daemon("fence", "links", "refresh")
        joining = world.add_host(
            name="joining", publish_address="10.0.2.1", state=HostState.JOINING
        )
        world.clock.advance(2)
        installation.run_daemon("fence", "links", "refresh")
        wait_until(lambda: world.store.hosts.get(joining.id).state is HostState.UP)
    finally:
        released.set()
