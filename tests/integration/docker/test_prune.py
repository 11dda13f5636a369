"""What an operator's prune or restart takes from an engine comes back by itself, or is named.

The daemon's loops run on a real engine of the test's own, which may be pruned. The test plays the
agents.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.adapters.docker.engine import DockerEngine
from orchestrator.adapters.docker.flags import SandboxLimits
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.agent_sockets import folder_of
from orchestrator.domain.pool.host import Host, HostState
from orchestrator.domain.pool.host_liveness import LinkState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import Phase, Session, SessionState
from orchestrator.loops import passes
from orchestrator.loops.cpu_limiter import CpuLimiter
from orchestrator.loops.engine_calls import EngineCalls
from orchestrator.loops.host_passes import HostPasses
from orchestrator.loops.loop import LoopSpec
from orchestrator.loops.reconciler import Reconciler
from orchestrator.ports import CommandOutcome
from orchestrator.services.agents import inbox
from orchestrator.services.deps import Policy
from tests.fakes.fleet import REACHABLE, ImagePushesInMemory
from tests.fakes.samples import NOW
from tests.integration.docker import own_engine, support
from tests.integration.docker.own_engine import OwnEngine
from tests.unit.services.conftest import catalog, world
from tests.unit.services.world import World

__all__ = ["catalog", "world"]

AWAY = LinkState(up=False, since=NOW, reason="the engine does not answer")
_DEADLINE_S = 90.0
_TURN_S = 0.2


@dataclass(kw_only=True)
class Site:
    """One host with a real engine, and the daemon's loops."""

    world: World
    own: OwnEngine
    engine: DockerEngine
    host: Host
    loops: Sequence[LoopSpec]

    def turn(self) -> None:
        """One pass of every loop, one look at each nudged session, one call of each agent."""
        for loop in self.loops:
            loop.run()
        nudged, self.world.queue.nudges = self.world.queue.nudges, []
        for session_id in dict.fromkeys(session_id for session_id, _ in nudged):
            self.world.converge(self.world.session(session_id))
        running = set(self.own.docker("ps", "--format", "{{.Names}}").split())
        states = (SandboxState.CREATING, SandboxState.WARM, SandboxState.CLAIMED)
        for sandbox in self.world.sandboxes(*states):
            if f"spawn-{sandbox.id}" in running:
                inbox.visit(self.world.deps, sandbox.id, "")
        self.world.fleet.changed = {self.host.id}
        self.world.clock.advance(_TURN_S)

    def turn_until(self, condition: Callable[[], bool]) -> None:
        waiting, waited_s = threading.Event(), 0.0
        while not condition():
            reason = self.stored.reason
            assert waited_s < _DEADLINE_S, reason
            self.turn()
            waiting.wait(_TURN_S)
            waited_s += _TURN_S

    @property
    def stored(self) -> Host:
        return self.world.store.hosts.get(self.host.id)

    def is_up(self) -> bool:
        return self.stored.state is HostState.UP

    def warm(self) -> int:
        return sum(self.world.store.sandboxes.warm_counts().values())

    def warm_ids(self) -> set[SandboxId]:
        return {sandbox.id for sandbox in self.world.sandboxes(SandboxState.WARM)}

    def make_ready(self) -> Session:
        """A new session that becomes READY at its first attempt."""
        session = self.world.create_session()
        self.turn_until(lambda: self.has_sandbox(session))
        self.world.report(session, Phase.READY)
        self.turn_until(lambda: self.world.state(session) is SessionState.READY)
        assert self.world.session(session).attempt == 1
        return session

    def has_sandbox(self, session: Session) -> bool:
        """Whether its sandbox has started. Until then it may lose one and wait for another."""
        sandbox_id = self.world.session(session).sandbox_id
        if sandbox_id is None:
            return False
        return self.world.sandbox(sandbox_id).state is SandboxState.CLAIMED

    def is_fenced(self) -> bool:
        rules = self.own.run(("iptables", "-w", "5", "-t", "mangle", "-S", "PREROUTING")).output
        bridge = SandboxLimits(instance="prune").bridge
        return bridge in rules and bridge in self.own.run(("cat", "/proc/net/dev")).output


@dataclass(frozen=True)
class Folders:
    """Makes the agent folders. No agent runs here, so they need no socket."""

    parent: Path

    def offer(self, sandbox_id: SandboxId) -> None:
        Path(folder_of(str(self.parent), sandbox_id)).mkdir(parents=True, exist_ok=True)

    def withdraw(self, sandbox_id: SandboxId) -> None:
        """They go with their parent."""


@pytest.fixture(scope="module")
def own() -> Iterator[OwnEngine]:
    with own_engine.started() as own:
        own.load(support.probe_image())
        yield own


@pytest.fixture
def site(world: World, own: OwnEngine) -> Iterator[Site]:
    """A host on which nothing runs."""
    with opened(world, own, warm_target=0) as site:
        yield site


@pytest.fixture
def filled(world: World, own: OwnEngine) -> Iterator[Site]:
    """A host with two warm sandboxes."""
    with opened(world, own, warm_target=2) as site:
        site.turn_until(lambda: site.warm() == 2)
        yield site


@contextlib.contextmanager
def opened(world: World, own: OwnEngine, warm_target: int) -> Iterator[Site]:
    world.image = support.probe_image()
    world.policy = Policy(warm_target=warm_target)
    checks: list[Sequence[str]] = []

    def run(argv: Sequence[str]) -> CommandOutcome:
        outcome = own.run(argv)
        if argv == ("ip6tables", "-w", "5", "-S"):  # the last command of each check of the fences
            checks.append(argv)
        return outcome

    with (
        tempfile.TemporaryDirectory(prefix="spawn-agent-") as folder,
        contextlib.closing(
            DockerEngine(
                own.url,
                SandboxLimits(instance="prune"),
                run=run,
                sockets=Folders(Path(folder)),
            )
        ) as engine,
    ):
        Path(folder).chmod(0o755)
        (Path(folder) / "mark").touch()  # where the fleet in memory says that it left one
        host = world.add_host(
            state=HostState.JOINING, docker_url=own.url, image="", agent_folder=folder, slots=4
        )
        world.engines.special[host.id] = engine
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
        site = Site(world=world, own=own, engine=engine, host=host, loops=loops)
        # Up, and past the first check of the fences. The next one is too late to help any test.
        site.turn_until(lambda: site.is_up() and len(checks) > 1)
        try:
            yield site
        finally:
            support.remove_all(engine)
            engine.dismantle()


def test_a_pruned_network_is_there_again_with_its_fence(site: Site) -> None:
    site.own.docker("network", "prune", "--force")
    assert not site.own.docker("network", "ls", "--quiet", "--filter", "name=spawnai-prune")
    site.make_ready()
    assert site.is_fenced()


def test_a_pruned_image_is_named_with_the_command_that_brings_it_back(site: Site) -> None:
    site.own.docker("system", "prune", "--all", "--force", "--volumes")
    session = site.world.create_session()
    site.turn_until(lambda: "spawnctl image build" in site.stored.reason)
    assert not site.is_up()
    site.own.load(support.probe_image())  # as the build does
    site.turn_until(lambda: site.has_sandbox(session))
    assert site.world.session(session).attempt == 1
    assert site.is_fenced()


def test_an_image_that_is_removed_beside_running_sandboxes_is_named_too(site: Site) -> None:
    session = site.make_ready()
    site.own.docker("image", "rm", "--force", support.probe_image())
    site.world.clock.advance(30)
    site.turn_until(lambda: "spawnctl image build" in site.stored.reason)
    assert site.world.state(session) is SessionState.READY
    site.own.load(support.probe_image())
    site.turn_until(site.is_up)
    assert site.world.state(session) is SessionState.READY


def test_sandboxes_that_somebody_removed_are_made_again(filled: Site) -> None:
    before = filled.warm_ids()
    filled.own.docker("rm", "--force", *filled.own.docker("ps", "--quiet").split())
    filled.own.docker("network", "prune", "--force")
    filled.turn_until(lambda: filled.warm() == 2 and before.isdisjoint(filled.warm_ids()))
    assert filled.is_fenced()


def test_an_engine_that_restarts_with_other_settings_is_fenced_and_filled_again(
    filled: Site,
) -> None:
    """Its machine was switched off meanwhile, too: all firewall rules are gone."""
    before = filled.warm_ids()
    filled.own.stop()
    filled.own.flags = ("--log-opt", "max-size=1m", "--userland-proxy=false")
    filled.own.start()
    filled.world.clock.advance(30)
    filled.turn_until(lambda: filled.warm() == 2 and before.isdisjoint(filled.warm_ids()))
    filled.turn_until(filled.is_fenced)


def test_an_app_that_ends_with_its_engine_has_not_crashed(site: Site) -> None:
    session = site.make_ready()
    lost = site.world.sandbox_of(session)
    site.own.process.terminate()
    while site.own.process.poll() is None:  # it still tells of the containers that it stops
        for loop in site.loops:
            loop.run()
        site.world.fleet.changed = {site.host.id}
    assert site.world.sandbox(lost.id).state is SandboxState.CLAIMED
    site.world.fleet.link_states[site.host.id] = AWAY
    for loop in site.loops:
        loop.run()
    assert not site.is_up()
    site.own.start()
    site.world.fleet.link_states[site.host.id] = REACHABLE
    site.turn_until(lambda: site.world.sandbox(lost.id).state is not SandboxState.CLAIMED)
    site.turn_until(lambda: site.has_sandbox(session))
    site.world.report(session, Phase.READY)
    site.turn_until(lambda: site.world.state(session) is SessionState.READY)
    assert site.world.sandbox(lost.id).ended_by_host
    assert "its container stopped" in site.world.sandbox(lost.id).reason
    assert site.world.session(session).crashes == ()
