"""A session that moves from one host to another, for the tests of moves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from orchestrator.domain.pool.host import Drain, Host
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.domain.sessions.session import Failure, Phase, Report, Session, SessionState
from orchestrator.services.agents import inbox, reports
from orchestrator.services.pool import drains, hosts
from tests.fakes.engine import EngineInMemory
from tests.unit.services.world import OPERATOR, World


class Move:
    """A session that runs on one host, and another host that it can move to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.old = world.add_host(slots=9, publish_address="10.0.0.1")
        self.session = world.run_session(world.create_session())
        self.new = self.host("10.0.0.2")

    def host(self, address: str, **changes: Any) -> Host:
        host = self.world.add_host(slots=9, publish_address=address, **changes)
        self.world.engines.special[host.id] = EngineInMemory()
        return host

    def drain(self) -> None:
        hosts.drain(self.world.deps, OPERATOR, self.old.name, Drain.MOVE)
        drains.continue_drain(self.world.deps, self.world.store.hosts.get(self.old.id))

    @property
    def now(self) -> Session:
        return self.world.session(self.session)

    @property
    def other(self) -> Sandbox:
        """The other sandbox of the move."""
        assert self.now.move is not None
        return self.world.sandbox(self.now.move.sandbox_id)

    def converge(self) -> tuple[str, ...]:
        steps = self.world.converge(self.session).steps
        assert self.now.state is SessionState.READY
        assert self.now.slug == self.session.slug
        return steps

    def arrive(self, phase: Phase = Phase.READY, failure: Failure | None = None) -> None:
        """Let the successor's agent fetch the app and report `phase`."""
        self.world.start_placed()
        other = self.other
        assignment = inbox.visit(self.world.deps, other.id, "").assignment
        assert assignment is not None
        assert assignment["kind"] == "bundle", "Claude is not called again"
        report = Report(seq=1, phase=phase, progress=50, failure=failure)
        assert reports.record_report(self.world.deps, self.now, other.id, report, [])

    def clear(self) -> None:
        """Let the pool clear a sandbox that was abandoned."""
        for _ in range(2):
            self.world.clear()
            self.world.publish()


@contextlib.contextmanager
def only(world: World, host: Host) -> Iterator[None]:
    """Placements and claims go to this host alone."""
    others = [other.id for other in world.store.hosts.list() if other.id != host.id]
    for other_id in others:
        world.store.hosts.change(other_id, lambda host: replace(host, cordoned=True))
    yield
    for other_id in others:
        world.store.hosts.change(other_id, lambda host: replace(host, cordoned=False))
