"""A public app that clients reach over HTTP, on a pool that works, for tests that know nothing of
it but its OpenAPI document.

What workers, daemon and agents would do happens at once, within the request that asks for it. So
an app that somebody starts is ready, a message becomes a version, and who ends an app sees it end.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator import config
from orchestrator.domain.ids import SessionId
from orchestrator.domain.people.access import Role
from orchestrator.domain.sessions.priority import Queue
from orchestrator.domain.sessions.session import Phase, Session, SessionState, Tier, Wanted
from orchestrator.entrypoints.api import public_app
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.serving import make_server
from orchestrator.services.people import keys
from tests.fakes.hub import deaf_hub
from tests.fakes.queue import QueueInMemory
from tests.fakes.samples import NOW, later
from tests.integration.serving import serving
from tests.unit.services.world import World, bundle_of

_LEFT_ALONE = 4  # one of so many new sessions stays in the queue, so that there are some
_LIVE_MAX = 30  # sessions; the oldest one beyond expires
_A_DAY_S = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Where it is, and who may ask it what."""

    url: str
    operator_key: str
    user_key: str


class WorkAtOnce(QueueInMemory):
    """Does what a nudge asks for before it returns."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._lock = threading.Lock()  # requests are handled in threads
        self._live: list[SessionId] = []
        self._left: set[SessionId] = set()
        self._count = 0

    def nudge(self, session_id: SessionId, queue: Queue) -> None:
        super().nudge(session_id, queue)
        if not self._lock.acquire(blocking=False):
            return  # a nudge of our own
        try:
            self._world.clock.advance(0.001)
            self._work(self._world.session(session_id))
        finally:
            self._lock.release()

    def _work(self, session: Session) -> None:
        if session.wanted is Wanted.GONE:
            self._end(session)
        elif session.state is SessionState.READY:
            self._change(session)
        elif session.id not in self._left:
            self._admit(session)

    def _admit(self, session: Session) -> None:
        self._live.append(session.id)
        if len(self._live) > _LIVE_MAX:
            oldest = self._world.session(self._live.pop(0))
            self._world.request_end(oldest)
            self._end(oldest)
        self._count += 1
        if self._count % _LEFT_ALONE and self._world.store.hosts.any_accepts(session.wish):
            self._start(session)
        else:
            self._left.add(session.id)

    def _start(self, session: Session) -> None:
        if session.bundle is None:
            self._world.write_app(session)
        else:
            self._world.run_session(session)

    def _change(self, session: Session) -> None:
        self._world.converge(session)
        change = self._world.change(session, self._world.session(session).turns.started)
        if change.restores is None:
            data = bundle_of(f"<h1>version {change.number}</h1>")
            self._world.carry_out_change(session, data)
        else:
            self._world.report(session, Phase.READY)
        self._world.converge(session)

    def _end(self, session: Session) -> None:
        for _ in range(3):
            self._world.converge(session)
            self._world.publish()
            self._world.clear()


@contextlib.contextmanager
def installation(world: World, folder: Path) -> Iterator[Installation]:
    """Serve the public app of this world until the block ends."""
    world.add_host(slots=2 * _LIVE_MAX, region="eu", labels={"gpu": "yes"}, name="alpha")
    world.store.leases.hold("daemon", "here:1", later(365 * _A_DAY_S), NOW)
    world.queue = WorkAtOnce(world)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        context = Context(
            # Where the proxy is asked whether it answers for us, we do.
            settings=config.make(state_dir=folder, control_port=port, access_log="off"),
            deps=world.deps,
            hub=deaf_hub(),
            started_at=NOW,
            answers_kept_s=0.0,
        )
        app = public_app.build(context)
        try:
            with serving(lambda: make_server(app, fd=listener.fileno(), ws="none")):
                yield Installation(
                    url=f"http://127.0.0.1:{port}",
                    operator_key=_new_key(world, "ops", Tier.OPERATOR, Role.OPERATOR),
                    user_key=_new_key(world, "ci", Tier.PRO, Role.USER),
                )
        finally:
            context.threads.shutdown()


def _new_key(world: World, name: str, tier: Tier, role: Role) -> str:
    return keys.create(world.deps, name, tier, role).secret
