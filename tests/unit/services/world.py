"""A World for the tests of services: fakes of the ports, and a store in a SQLite file.

A World also acts for what the tests don't run: the agents, the publisher, and time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator import ports
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SandboxId, SessionId
from orchestrator.domain.people.access import Principal, Role
from orchestrator.domain.people.tokens import SessionGrant, Tokens
from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.pool.sandbox_diagnosis import Container
from orchestrator.domain.pool.silence import Hearing
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.session import (
    Failure,
    Phase,
    Report,
    Session,
    SessionState,
    Tier,
    Wanted,
)
from orchestrator.ports import SandboxSpec
from orchestrator.services.agents import access, inbox, reports
from orchestrator.services.agents.bundles import keep_bundle
from orchestrator.services.deps import Deps, Policy
from orchestrator.services.pool import claims, host_life, reconcile, routes
from orchestrator.services.sessions import changes, converge, requests, starts, walks
from tests.fakes import samples
from tests.fakes.board import BoardInMemory
from tests.fakes.clock import ManualClock
from tests.fakes.engine import EngineInMemory, EnginesByHost
from tests.fakes.events import EventsInMemory
from tests.fakes.fleet import FleetInMemory
from tests.fakes.gateway import GatewayStatusInMemory
from tests.fakes.listener import ListenerInMemory
from tests.fakes.port_looks import PortLooksInMemory
from tests.fakes.probe import ProbeThatSucceeds
from tests.fakes.proxy import ProxyInMemory
from tests.fakes.queue import QueueInMemory
from tests.fakes.reserve import ReserveInMemory

SECRET = b"a secret of thirty-two bytes or so"
VISITOR = Principal(user_id=samples.USER, tier=Tier.FREE)
OPERATOR = Principal(user_id=ids.UserId("usr_" + "o" * 26), tier=Tier.OPERATOR, role=Role.OPERATOR)


@dataclass
class World:
    """Ports that work. A test puts another fake in the place of one to break it."""

    store: ports.Store
    bundles: ports.Bundles
    catalog: ports.Catalog
    clock: ManualClock = field(default_factory=ManualClock)
    engine: EngineInMemory = field(default_factory=EngineInMemory)
    proxy: ProxyInMemory = field(default_factory=ProxyInMemory)
    queue: QueueInMemory = field(default_factory=QueueInMemory)
    overdue: list[SessionId] = field(default_factory=list)  # named by the nudge loop
    events: EventsInMemory = field(default_factory=EventsInMemory)
    probe: ProbeThatSucceeds = field(default_factory=ProbeThatSucceeds)
    port_looks: PortLooksInMemory = field(default_factory=PortLooksInMemory)
    board: BoardInMemory = field(default_factory=BoardInMemory)
    listener: ListenerInMemory = field(default_factory=ListenerInMemory)
    gateway: GatewayStatusInMemory = field(default_factory=GatewayStatusInMemory)
    policy: Policy = field(default_factory=lambda: Policy(can_generate=True, model="claude-test"))
    image: str = samples.IMAGE
    free_bytes: int = 20 * 1024**3  # of the disk with the state folder
    reserve: ports.Reserve = field(default_factory=ReserveInMemory)

    def __post_init__(self) -> None:
        self.engines = EnginesByHost(self.engine)
        self.fleet = FleetInMemory(self.engines)

    @property
    def deps(self) -> Deps:
        if self.engines.default is not self.engine:
            self.engines.default = self.engine
        return Deps(
            store=self.store,
            engines=self.engines,
            queue=self.queue,
            events=self.events,
            probe=self.probe,
            port_looks=self.port_looks,
            bundles=self.bundles,
            catalog=self.catalog,
            board=self.board,
            listener=self.listener,
            gateway=self.gateway,
            clock=self.clock,
            tokens=Tokens(SECRET),
            image=lambda: self.image,
            spread=lambda: 0.0,
            policy=self.policy,
            free_storage=lambda: self.free_bytes,
            reserve=self.reserve,
        )

    # Hosts and sandboxes

    def add_host(self, **changes: Any) -> Host:
        host = samples.host(**changes)
        self.store.hosts.put(host)
        return host

    def sandbox(self, sandbox_id: SandboxId) -> Sandbox:
        return self.store.sandboxes.get(sandbox_id)

    def sandboxes(self, *states: SandboxState) -> Sequence[Sandbox]:
        return self.store.sandboxes.list(states=states or None)

    def add_warm_sandbox(self) -> Sandbox:
        """One more warm sandbox, made as the refill loop makes it."""
        new = samples.new_sandbox(image=self.image, raised=self.policy.cpus.can_differ)
        placed = self.store.sandboxes.place(new, self.clock.now())
        claims.start(self.deps, placed)
        self.publish()
        inbox.visit(self.deps, placed.id, "")
        sandbox = self.sandbox(placed.id)
        assert sandbox.state is SandboxState.WARM
        return sandbox

    def roll_out_image(self, image: str) -> None:
        """Make another runtime image today's, and put it on all hosts."""
        self.image = image
        self.engine.images.add(image)
        for host in self.store.hosts.list():
            self.store.hosts.change(host.id, lambda host: replace(host, image=image))

    def reconcile(self, host: Host) -> reconcile.ReconcileResult:
        """Compare a host with the store, as if its agents could always reach us. Orphans are
        removed at once."""
        engine = self.deps.engines.for_host(host)

        def remove(_host: Host, container: Container) -> bool:
            engine.remove(container.sandbox_id)
            return True

        return reconcile.reconcile(self.deps, host, engine.containers(), self.hearing, remove)

    @property
    def hearing(self) -> Hearing:
        """Agents could always reach us."""
        return Hearing(since=samples.NOW, until=self.clock.now())

    def lose_host(self, host: Host) -> None:
        """Declare a host lost: its link has been down for too long."""
        claims.mark_suspect(self.deps, host.id, "no answer")
        host_life.declare_lost(self.deps, self.store.hosts.get(host.id), "no answer for 15 s")

    def clear(self) -> int:
        """One pass of the clear loop, with each removal at once. Returns how many advanced."""

        def remove(sandbox: Sandbox) -> bool:
            try:
                reconcile.remove(self.deps, sandbox)
            except errors.Temporary:
                return False
            return True

        return reconcile.clear_loose_ends(self.deps, remove)

    def start_placed(self) -> None:
        """One pass of the start loop, with each start of a session's sandbox at once."""
        for sandbox in self.store.sandboxes.unstarted():
            if sandbox.session_id is not None:
                starts.start(self.deps, sandbox)

    def host_of(self, session: Session) -> Host:
        return self.store.hosts.get(self.sandbox_of(session).host_id)

    def publish(self) -> routes.Published:
        return routes.publish(self.deps, self.proxy)

    # Sessions

    def create_session(self, principal: Principal = VISITOR, **changes: Any) -> Session:
        """A session as the API makes it, from a template unless the test says otherwise."""
        fields = {"prompt": "", "template": "kanban", "ttl_s": None, **changes}
        session = requests.create(self.deps, principal, requests.Request(**fields))
        self.clock.advance(0.001)  # no two sessions are created at the same instant
        return session

    def session(self, session: Session | SessionId) -> Session:
        """The session as it is stored now."""
        return self.store.sessions.get(session if isinstance(session, str) else session.id)

    def save(self, session: Session, **changes: Any) -> Session:
        return self.store.sessions.save(replace(self.session(session), **changes))

    def converge(self, session: Session) -> converge.Outcome:
        """Look at a session. If it asks for a walk, do that, and look again."""
        outcome = converge.converge(self.deps, session.id)
        steps = outcome.steps
        while outcome.steps[-1:] == ("Walk",) and self.walk(session):
            outcome = converge.converge(self.deps, session.id)
            steps += outcome.steps
        return replace(outcome, steps=steps)

    def walk(self, session: Session) -> bool:
        """Do what the process `agents` does for a session that wants a walk. False: none."""
        errand = walks.find_errand(self.deps, session.id)
        if errand is None:
            return False
        walks.end(self.deps, errand, self.probe.look(errand.slug))
        return True

    def walk_again(self, session: Session) -> None:
        """Let the next walk come, after one that has failed, and look at the session then."""
        walked = self.session(session).walked
        assert walked is not None
        self.clock.jump_to(walked.next_at)
        self.walk(session)
        self.converge(session)

    def sandbox_of(self, session: Session) -> Sandbox:
        sandbox_id = self.session(session).sandbox_id
        assert sandbox_id is not None
        return self.sandbox(sandbox_id)

    def state(self, session: Session) -> SessionState:
        return self.session(session).state

    def history(self, session: Session) -> str:
        """The states that a session has been in, oldest first."""
        return " ".join(entered.state for entered in self.session(session).history)

    # Agents

    def token(self, session: Session) -> str:
        """The token of the current attempt's agent."""
        current = self.session(session)
        assert current.sandbox_id is not None
        grant = SessionGrant(
            session_id=current.id,
            attempt=current.attempt,
            sandbox_id=current.sandbox_id,
            change=current.turns.started,
        )
        return self.deps.tokens.for_session(grant)

    def report(
        self,
        session: Session,
        phase: Phase,
        seq: int = 0,
        failure: Failure | None = None,
        **more: Any,
    ) -> bool:
        """Send the next report of the current attempt's agent."""
        current = access.authorize(self.deps, self.token(session), session.id)
        seq = seq or (current.report.seq + 1 if current.report else 1)
        report = Report(
            seq=seq, phase=phase, progress=50, message="working", failure=failure, **more
        )
        assert current.sandbox_id is not None
        return reports.record_report(self.deps, current, current.sandbox_id, report, [])

    def report_failure(self, session: Session, *, permanent: bool) -> None:
        failure = Failure(code="app_not_ready", message="it exited", permanent=permanent)
        assert self.report(session, Phase.FAILED, failure=failure)

    def upload_bundle(self, session: Session, data: bytes, *, healthy: bool = True) -> None:
        """Upload a version, as the agent does before it reports READY."""
        current = access.authorize(self.deps, self.token(session))
        keep_bundle(self.deps, current, data, digest_of(data), healthy=healthy)

    # Whole runs

    def run_session(self, session: Session) -> Session:
        """Take a session from QUEUED to READY on a warm sandbox."""
        self.add_warm_sandbox()
        self.converge(session)
        inbox.visit(self.deps, self.sandbox_of(session).id, "")
        self.report(session, Phase.READY)
        self.publish()
        self.converge(session)
        assert self.state(session) is SessionState.READY
        return self.session(session)

    def generate_app(self, prompt: str = "a tide calendar", data: bytes = b"") -> Session:
        """A READY session whose app Claude has written."""
        return self.write_app(self.create_session(prompt=prompt, template=None), data)

    def write_app(self, session: Session, data: bytes = b"") -> Session:
        """Take a session from QUEUED to READY, with an app that Claude writes."""
        self.add_warm_sandbox()
        self.converge(session)
        self.report(session, Phase.GENERATING)
        self.converge(session)
        self.upload_bundle(session, data or bundle_of())
        self.report(session, Phase.READY, summary="Tides of the week.")
        self.publish()
        self.converge(session)
        assert self.state(session) is SessionState.READY
        return self.session(session)

    def send_message(self, session: Session, text: str = "make it blue") -> Change:
        """Ask Claude for a change, as the session's user."""
        added = changes.send_message(self.deps, VISITOR, session.id, text)
        self.clock.advance(0.001)
        return added.change

    def carry_out_change(self, session: Session, data: bytes, summary: str = "It is blue.") -> None:
        """Do the agent's part of a change that succeeds."""
        assert self.report(session, Phase.GENERATING)
        self.upload_bundle(session, data)
        assert self.report(session, Phase.READY, summary=summary)

    def change(self, session: Session, number: int) -> Change:
        return self.store.changes.get(session.id, number)

    def settle(self, session: Session, rounds: int = 6) -> Session:
        """Run workers, publisher and agents for some rounds, and let time pass in between."""
        for _ in range(rounds):
            self.converge(session)
            self.start_placed()
            self.publish()
            self.clear()
            for sandbox in self.sandboxes(SandboxState.CREATING):
                if sandbox.container_id is not None:
                    inbox.visit(self.deps, sandbox.id, "")
            current = self.session(session)
            self.clock.jump_to(min(current.due_at, current.expires_at))
        return self.session(session)

    def request_end(self, session: Session) -> None:
        self.save(session, wanted=Wanted.GONE, due_at=self.clock.now())


class RaceToWrite:
    """A store in which another process writes the session just before we do, `times` times.

    It wraps a working store, so that the race is lost on a real revision. `change` is what the
    other process writes; by default it only raises the revision.
    """

    def __init__(
        self,
        store: ports.Store,
        times: int = 1,
        change: Callable[[Session], Session] = lambda session: session,
    ) -> None:
        self._store = store
        self._times = times
        self._change = change
        self.sessions = _Raced(store.sessions, self._bump)
        self.sandboxes = _Raced(store.sandboxes, self._bump)
        self.bundles = _Raced(store.bundles, self._bump)

    def _bump(self, *arguments: object) -> None:
        session = next((value for value in arguments if isinstance(value, Session)), None)
        if self._times > 0 and session is not None:
            self._times -= 1
            self._store.sessions.save(self._change(self._store.sessions.get(session.id)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


_WRITES_OF_SESSIONS = frozenset(
    {"save", "claim", "claim_successor", "place_for", "switch", "abandon", "keep", "retire"}
)


class _Raced:
    """One part of a store. Calls `before` ahead of each method that writes a session."""

    def __init__(self, part: object, before: Callable[..., None]) -> None:
        self._part = part
        self._before = before

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)
        if name not in _WRITES_OF_SESSIONS:
            return method

        def raced(*given: Any, **named: Any) -> Any:
            self._before(*given)
            return method(*given, **named)

        return raced


def identity_of(spec: SandboxSpec) -> dict[str, str | bool]:
    identity: dict[str, str | bool] = json.loads(spec.identity)
    return identity


def digest_of(data: bytes) -> ids.Sha256:
    return ids.Sha256(hashlib.sha256(data).hexdigest())


def bundle_of(text: str = "<h1>hello</h1>", **manifest: Any) -> bytes:
    """A valid static bundle: the same bytes for the same app, whatever the time is."""
    fields = {"kind": "static", "title": "Hello", **manifest}
    files = {"spawn.json": json.dumps(fields).encode(), "index.html": text.encode()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)
