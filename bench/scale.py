"""How costs grow with the pool, by simulation: `python -m bench.scale`.

It runs the real store, planner, services and loops on simulated hosts: 10, 100 and 1,000 of them
with 50 slots each. Half of the slots hold a session. It prints how long a claim, a placement and
the passes of the daemon cost, and how this grows with the number of hosts. It writes
bench/scale.md, which also says what is not in it.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import orchestrator
from orchestrator.adapters import sql_store
from orchestrator.adapters.files.bundle_store import FolderBundles
from orchestrator.adapters.files.catalog import FolderCatalog
from orchestrator.adapters.sql_store import codec, schema, upgrade
from orchestrator.adapters.sql_store.database import engine_for, parse
from orchestrator.domain import ids
from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.people.access import Principal
from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.host_liveness import LinkState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.pool.sandbox_diagnosis import Container
from orchestrator.domain.sessions.session import SessionState
from orchestrator.loops.engine_calls import EngineCalls
from orchestrator.loops.host_book import HostBook
from orchestrator.loops.host_passes import HostPasses
from orchestrator.loops.passes import Publisher
from orchestrator.loops.reconciler import Reconciler
from orchestrator.ports import CommandOutcome
from orchestrator.services.deps import Policy
from orchestrator.services.pool import refill
from tests.fakes import samples
from tests.fakes.threads import run_at_once
from tests.unit.services.world import VISITOR, World

SIZES = (10, 100, 1000)
SLOTS = 50
HELD = 25  # sandboxes per host that belong to sessions
WARM = 100  # in the whole pool
SAMPLES = 40
PASSES = 30  # of those that are averaged
_MISSING = """Not in it: Docker, SSH and the network, so neither what hosts take to answer nor what
their events cost; the agents' polls (`make bench` has 5,000 of them) and the visits that they
write; nginx and Redis; several processes that write at once; PostgreSQL. Nothing fails in it.
"""
RESULTS = Path(__file__).parent / "scale.md"


def main() -> None:
    """Measure each size, print the table, and write it."""
    columns = {size: _measure(size) for size in SIZES}
    names = list(columns[SIZES[0]])
    head = " | ".join(f"{size} hosts, {size * HELD} sessions" for size in SIZES)
    lines = [
        f"| CPU time, ms | {head} | {SIZES[-1] // SIZES[0]} times the hosts |",
        "|---|" + "---:|" * (len(SIZES) + 1),
    ]
    for name in names:
        figures = [columns[size][name] for size in SIZES]
        cells = " | ".join(f"{figure * 1000:.2f}" for figure in figures)
        lines.append(f"| {name} | {cells} | x {figures[-1] / figures[0]:.1f} |")
    text = (
        "# Scale, by simulation\n\n"
        f"One run of `python -m bench.scale`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; SQLite,"
        f" {SLOTS} slots and {HELD} sessions per host, {WARM} warm sandboxes in the pool;"
        " engines, links and proxy in memory, everything else is what runs in production. Claims,"
        f" placements and the passes that decide: p50 of {SAMPLES}. Other passes: the mean of"
        f" {PASSES}, with the time between them that the daemon leaves; so it includes what is done"
        " at some of them only.\n\n" + "\n".join(lines) + f"\n\n{_MISSING}"
    )
    RESULTS.write_text(text)
    print(text)


def _measure(size: int) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(prefix="spawn-scale-"))
    try:
        url = f"sqlite:///{folder / 'spawn.db'}"
        upgrade.migrate(url)
        simulation = Simulation.of(url, folder, size)
        return simulation.figures()
    finally:
        shutil.rmtree(folder)


@dataclass
class Simulation:
    """A simulated pool of one size, and the services on it."""

    world: World
    fleet: SimulatedFleet
    size: int

    @classmethod
    def of(cls, url: str, folder: Path, size: int) -> Simulation:
        hosts = fill(url, size, warm=WARM, heard=timedelta(days=1))  # so that no agent is silent
        world = World(
            store=sql_store.open_store(url, port_range=(21000, 21999)),
            bundles=FolderBundles(folder / "bundles"),
            catalog=FolderCatalog(Path(orchestrator.__file__).parent / "catalog"),
            policy=Policy(warm_target=WARM),
        )
        world.clock.jump_to(datetime.now(UTC))
        return cls(world=world, fleet=SimulatedFleet(hosts), size=size)

    def figures(self) -> dict[str, float]:
        """The median seconds of each measurement, by its name."""
        deps = self.world.deps
        calls = EngineCalls(deps, run_at_once)
        book = HostBook(deps)
        hosts = HostPasses(deps, self.fleet, NoPushes(), spawn=run_at_once, book=book)
        reconciler = Reconciler(deps, self.fleet, calls, spawn=run_at_once, book=book)
        publisher = Publisher(deps, self.world.proxy)
        hosts.update_links()
        try:
            return {
                "claim of a warm sandbox: converge of one session": self._claims(),
                "placement of a new sandbox": self._placements(),
                "refill pass: decide": _median(lambda: refill.measure_level(self.world.deps)),
                "reconcile pass: one host had an event": self._mean(
                    2, lambda: self._reconcile(reconciler)
                ),
                "links pass: one link had an event": self._mean(1, lambda: self._link(hosts)),
                "refresh pass: who is due is measured": self._mean(2, hosts.refresh),
                "ports pass: who is due is looked at": self._mean(2, hosts.check_ports),
                "publish pass: nothing changed": self._mean(1, publisher.publish),
                "nudge pass: nothing is due": _median(self._nothing_due),
            }
        finally:
            self.world.store.close()

    def _claims(self) -> float:
        durations = []
        for _ in range(SAMPLES):
            session = self.world.create_session(_new_user())
            durations.append(_cost(functools.partial(self.world.converge, session)))
            assert self.world.state(session) is SessionState.PROVISIONING
        return statistics.median(durations)

    def _placements(self) -> float:
        def place() -> None:
            new = samples.new_sandbox(image=samples.IMAGE)
            self.world.store.sandboxes.place(new, self.world.clock.now())

        return _median(place, min(SAMPLES, self.size))

    def _mean(self, every_s: float, run: Callable[[], object]) -> float:
        """The mean seconds of a pass that runs every so many seconds, after the first one."""
        run()
        durations = []
        for _ in range(PASSES):
            self.world.clock.advance(every_s)
            durations.append(_cost(run))
        return statistics.mean(durations)

    def _reconcile(self, reconciler: Reconciler) -> None:
        self.fleet.changed = {next(iter(self.fleet.containers_by_host))}
        reconciler.run()

    def _link(self, hosts: HostPasses) -> None:
        self.fleet.changed_links = {next(iter(self.fleet.containers_by_host))}
        hosts.update_links()

    def _nothing_due(self) -> None:
        self.world.store.sessions.due(datetime(2000, 1, 1, tzinfo=UTC), 100)


class SimulatedFleet:
    """ports.Fleet: every host answers, and runs the containers that the store has."""

    def __init__(self, containers_by_host: dict[HostId, Sequence[Container]]) -> None:
        self.containers_by_host = containers_by_host
        self.changed: Collection[HostId] = ()
        self.changed_links: Collection[HostId] = ()
        self._since = datetime.now(UTC) - timedelta(hours=1)

    def set_hosts(self, hosts: Sequence[Host]) -> None:
        """There are no links to open."""

    def sandboxes(self, host_ids: Collection[HostId]) -> Collection[SandboxId]:
        return ()

    def set_sandboxes(
        self,
        host_ids: Collection[HostId],
        living: Mapping[SandboxId, HostId],
        ended: Collection[SandboxId],
    ) -> None:
        """There are no sockets to offer."""

    def link_state(self, host: Host) -> LinkState | None:
        return LinkState(up=True, since=self._since)

    def run(self, host: Host, argv: Sequence[str]) -> CommandOutcome:
        return CommandOutcome(code=0, output="")

    @contextlib.contextmanager
    def mark(self, host: Host) -> Iterator[str]:
        yield "mark"

    def containers(self, host: Host) -> Sequence[Container] | None:
        return self.containers_by_host[host.id]

    def take_changed(self) -> Collection[HostId]:
        changed, self.changed = self.changed, ()
        return changed

    def take_changed_links(self) -> Collection[HostId]:
        changed, self.changed_links = self.changed_links, ()
        return changed


class NoPushes:
    """ports.ImagePushes: every host has the image."""

    def ensure(self, hosts: Sequence[Host]) -> None:
        assert not hosts


def _new_user() -> Principal:
    """A new user for each session, so that no limit is reached."""
    return replace(VISITOR, user_id=ids.new_user_id())


def _median(call: Callable[[], object], count: int = SAMPLES) -> float:
    return statistics.median(_cost(call) for _ in range(count))


def _cost(call: Callable[[], object]) -> float:
    """Seconds of CPU time that a call takes, whatever else the machine does."""
    started_at = time.process_time()
    call()
    return time.process_time() - started_at


def fill(
    url: str, size: int, *, warm: int, heard: timedelta = timedelta()
) -> dict[HostId, Sequence[Container]]:
    """Insert the rows of all hosts at once: through the store's calls this would take an hour.

    Each host has HELD sandboxes with a session; `warm` others are spread over all hosts. Their
    agents were heard last so long from now.
    """
    now = datetime.now(UTC)
    later = now + timedelta(days=1)
    hosts, sessions, sandboxes = [], [], []
    containers_by_host: dict[HostId, Sequence[Container]] = {}
    for number in range(size):
        host = samples.host(slots=SLOTS, created_at=now, state_since=now, seen_at=now)
        own_warm = warm // size + (number < warm % size)
        containers = []
        for index in range(HELD + own_warm):
            is_claimed = index < HELD
            session = samples.session(
                state=SessionState.READY, created_at=now, due_at=later, expires_at=later
            )
            sandbox = samples.sandbox(
                host_id=host.id,
                session_id=session.id if is_claimed else None,
                state=SandboxState.CLAIMED if is_claimed else SandboxState.WARM,
                port=21000 + index,
                agent_seen_at=now + heard,
                created_at=now,
                state_since=now,
            )
            containers.append(
                Container(id=str(sandbox.container_id), sandbox_id=sandbox.id, running=True)
            )
            sandboxes.append(codec.sandbox_values(sandbox))
            if is_claimed:
                owner = replace(session, slug=sandbox.slug, sandbox_id=sandbox.id)
                sessions.append(codec.session_values(owner))
        hosts.append({**codec.host_values(host), "used": HELD + own_warm})
        containers_by_host[host.id] = containers
    _insert(url, hosts, sessions, sandboxes)
    return containers_by_host


def _insert(url: str, hosts: list[Any], sessions: list[Any], sandboxes: list[Any]) -> None:
    engine = engine_for(parse(url), pool_size=0)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.execute(sa.insert(schema.hosts), hosts)
            connection.execute(sa.insert(schema.sessions), sessions)
            connection.execute(sa.insert(schema.sandboxes), sandboxes)
            connection.exec_driver_sql("COMMIT")
    finally:
        engine.dispose()


if __name__ == "__main__":
    main()
