"""The product around its services, without any server: fakes of the ports and a SQLite file.

A World also plays the parts of those who aren't here: the agents, the publisher, and time.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator import ports
from orchestrator.domain import ids
from orchestrator.domain.ids import SandboxId, SessionId
from orchestrator.domain.people.access import Principal, Role
from orchestrator.domain.people.tokens import SessionGrant, Tokens
from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
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
from orchestrator.services.sessions import changes, converge, requests
from tests.fakes import samples
from tests.fakes.board import BoardInMemory
from tests.fakes.clock import ManualClock
from tests.fakes.engine import EngineInMemory, EnginesByHost
from tests.fakes.events import EventsInMemory
from tests.fakes.fleet import FleetInMemory
from tests.fakes.probe import ProbeThatFindsAll
from tests.fakes.proxy import ProxyInMemory
from tests.fakes.queue import QueueInMemory

SECRET = b"a secret of thirty-two bytes or so"
VISITOR = Principal(user_id=samples.USER, tier=Tier.FREE)
OPERATOR = Principal(user_id=ids.UserId("usr_" + "o" * 26), tier=Tier.OPERATOR, role=Role.OPERATOR)


@dataclass
class World:
    """Ports that work; put another fake in the place of one to break it."""

    store: ports.Store
    bundles: ports.Bundles
    catalog: ports.Catalog
    clock: ManualClock = field(default_factory=ManualClock)
    engine: EngineInMemory = field(default_factory=EngineInMemory)
    proxy: ProxyInMemory = field(default_factory=ProxyInMemory)
    queue: QueueInMemory = field(default_factory=QueueInMemory)
    events: EventsInMemory = field(default_factory=EventsInMemory)
    probe: ProbeThatFindsAll = field(default_factory=ProbeThatFindsAll)
    board: BoardInMemory = field(default_factory=BoardInMemory)
    policy: Policy = field(default_factory=lambda: Policy(can_generate=True, model="claude-test"))
    image: str = samples.IMAGE

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
            bundles=self.bundles,
            catalog=self.catalog,
            board=self.board,
            clock=self.clock,
            tokens=Tokens(SECRET),
            image=lambda: self.image,
            spread=lambda: 0.0,
            policy=self.policy,
        )

    # Hosts and sandboxes

    def host(self, **changes: Any) -> Host:
        made = samples.host(**changes)
        self.store.hosts.put(made)
        return made

    def box(self, sandbox_id: SandboxId) -> Sandbox:
        return self.store.sandboxes.get(sandbox_id)

    def boxes(self, *states: SandboxState) -> Sequence[Sandbox]:
        return self.store.sandboxes.list(states=states or None)

    def warm(self) -> Sandbox:
        """One more warm sandbox, made as the pool makes it."""
        box = self.store.sandboxes.place(samples.new_sandbox(image=self.image), self.clock.now())
        claims.start(self.deps, box, replace_stale=False)
        self.publish()
        inbox.visit(self.deps, box.id, "")
        made = self.box(box.id)
        assert made.state is SandboxState.WARM
        return made

    def roll(self, image: str) -> None:
        """Today's runtime image is another one from now on, and all hosts have it."""
        self.image = image
        self.engine.images.add(image)
        for host in self.store.hosts.list():
            self.store.hosts.change(host.id, lambda found: replace(found, image=image))

    def reconcile(self, host: Host) -> reconcile.Treated:
        """One comparison of a host with the store, by agents that could always call."""
        containers = self.deps.engines.of(host).containers()
        return reconcile.reconcile(self.deps, host, containers, samples.NOW)

    def lose(self, host: Host) -> None:
        """Its link has been down for too long."""
        claims.suspect(self.deps, host.id, "no answer")
        host_life.lose(self.deps, self.store.hosts.get(host.id), "no answer for 15 s")

    def host_of(self, session: Session) -> Host:
        return self.store.hosts.get(self.sandbox_of(session).host_id)

    def publish(self) -> routes.Published:
        return routes.publish(self.deps, self.proxy)

    # Sessions

    def ask(self, who: Principal = VISITOR, **changes: Any) -> Session:
        """A session as the API makes it; of a template unless it is told otherwise."""
        fields = {"prompt": "", "template": "kanban", "ttl_s": None, **changes}
        made = requests.create(self.deps, who, requests.Request(**fields))
        self.clock.advance(0.001)  # no two ask at the same instant: the queue has an order
        return made

    def session(self, session: Session | SessionId) -> Session:
        return self.store.sessions.get(session if isinstance(session, str) else session.id)

    def save(self, session: Session, **changes: Any) -> Session:
        return self.store.sessions.save(replace(self.session(session), **changes))

    def converge(self, session: Session) -> converge.Outcome:
        return converge.converge(self.deps, session.id)

    def sandbox_of(self, session: Session) -> Sandbox:
        sandbox_id = self.session(session).sandbox_id
        assert sandbox_id is not None
        return self.box(sandbox_id)

    def state(self, session: Session) -> SessionState:
        return self.session(session).state

    def story(self, session: Session) -> str:
        return " ".join(entered.state for entered in self.session(session).history)

    # Agents

    def token(self, session: Session) -> str:
        """What the agent of the present attempt was given."""
        now = self.session(session)
        assert now.sandbox_id is not None
        grant = SessionGrant(
            session_id=now.id,
            attempt=now.attempt,
            sandbox_id=now.sandbox_id,
            change=now.turns.given,
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
        """What the agent of the present attempt says next."""
        found = access.authorize(self.deps, self.token(session), session.id)
        seq = seq or (found.report.seq + 1 if found.report else 1)
        said = Report(seq=seq, phase=phase, progress=50, message="working", failure=failure, **more)
        assert found.sandbox_id is not None
        return reports.report(self.deps, found, found.sandbox_id, said, [])

    def give_up(self, session: Session, *, permanent: bool) -> None:
        failure = Failure(code="app_not_ready", message="it exited", permanent=permanent)
        assert self.report(session, Phase.FAILED, failure=failure)

    def keep(self, session: Session, data: bytes, *, healthy: bool = True) -> None:
        """Upload a version, as the agent does before it reports READY."""
        found = access.authorize(self.deps, self.token(session))
        keep_bundle(self.deps, found, data, digest_of(data), healthy=healthy)

    # Ways that sessions go

    def run(self, session: Session) -> Session:
        """From QUEUED to READY on a warm sandbox."""
        self.warm()
        self.converge(session)
        inbox.visit(self.deps, self.sandbox_of(session).id, "")
        self.report(session, Phase.READY)
        self.publish()
        self.converge(session)
        assert self.state(session) is SessionState.READY
        return self.session(session)

    def generated(self, prompt: str = "a tide calendar", data: bytes = b"") -> Session:
        """A READY session whose app Claude has written."""
        return self.write(self.ask(prompt=prompt, template=None), data)

    def write(self, session: Session, data: bytes = b"") -> Session:
        """From QUEUED to READY, Claude's part included."""
        self.warm()
        self.converge(session)
        self.report(session, Phase.GENERATING)
        self.converge(session)
        self.keep(session, data or bundle_of())
        self.report(session, Phase.READY, summary="Tides of the week.")
        self.publish()
        self.converge(session)
        assert self.state(session) is SessionState.READY
        return self.session(session)

    def say(self, session: Session, text: str = "make it blue") -> Change:
        """What its user asks for next."""
        asked = changes.say(self.deps, VISITOR, session.id, text)
        self.clock.advance(0.001)
        return asked.change

    def carry_out(self, session: Session, data: bytes, summary: str = "It is blue.") -> None:
        """The agent's part in a change that goes well."""
        assert self.report(session, Phase.GENERATING)
        self.keep(session, data)
        assert self.report(session, Phase.READY, summary=summary)

    def change(self, session: Session, number: int) -> Change:
        return self.store.changes.get(session.id, number)

    def settle(self, session: Session, rounds: int = 6) -> Session:
        """Let the publisher, the agents, the workers and time do their part."""
        for _ in range(rounds):
            self.converge(session)
            self.publish()
            for box in self.boxes(SandboxState.CREATING):
                if box.container_id is not None:
                    inbox.visit(self.deps, box.id, "")
            found = self.session(session)
            self.clock.jump_to(min(found.due_at, found.expires_at))
        return self.session(session)

    def want_gone(self, session: Session) -> None:
        self.save(session, wanted=Wanted.GONE, due_at=self.clock.now())


class RaceToWrite:
    """A store whose sessions somebody else writes just before we do, `times` times.

    Wraps a sound store: the race is a real one, lost on a real revision.
    """

    def __init__(self, store: ports.Store, times: int = 1) -> None:
        self._store = store
        self._times = times
        self.sessions = _Raced(store.sessions, self._bump)
        self.sandboxes = _Raced(store.sandboxes, self._bump)

    def _bump(self, session: object) -> None:
        if self._times > 0 and isinstance(session, Session):
            self._times -= 1
            self._store.sessions.save(self._store.sessions.get(session.id))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class _Raced:
    """One part of a store: what writes a session is told to `before` first."""

    def __init__(self, part: object, before: Callable[[object], None]) -> None:
        self._part = part
        self._before = before

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)
        if name not in {"save", "claim", "claim_successor", "place_for", "switch"}:
            return method

        def raced(*given: Any, **named: Any) -> Any:
            self._before(given[0])
            return method(*given, **named)

        return raced


def identity_of(spec: SandboxSpec) -> dict[str, str]:
    said: dict[str, str] = json.loads(spec.identity)
    return said


def digest_of(data: bytes) -> ids.Sha256:
    return ids.Sha256(hashlib.sha256(data).hexdigest())


def bundle_of(text: str = "<h1>hello</h1>", **manifest: Any) -> bytes:
    """A sound static bundle."""
    said = {"kind": "static", "title": "Hello", **manifest}
    files = {"spawn.json": json.dumps(said).encode(), "index.html": text.encode()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
