"""A public app that clients reach over HTTP, on a pool that works, for tests that know nothing of
it but its OpenAPI document.

What workers, daemon and agents would do happens at once, within the request that asks for it. So
an app that somebody starts is ready, and has been changed once, so that there is a version to
restore; a message becomes a version; and who ends an app sees it end.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator import config, ports
from orchestrator.adapters.proxy.client_limits import ClientLimits
from orchestrator.domain.ids import KeyId, SessionId
from orchestrator.domain.people.access import Principal, Role
from orchestrator.domain.sessions.priority import Queue
from orchestrator.domain.sessions.session import Phase, Session, SessionState, Tier, Wanted
from orchestrator.entrypoints.api import public_app
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.serving import make_server
from orchestrator.services.people import keys
from orchestrator.services.sessions import changes
from tests.fakes.hub import deaf_hub
from tests.fakes.queue import QueueInMemory
from tests.fakes.samples import NOW, later
from tests.integration.proxy.world import free_port, running_world
from tests.integration.serving import serving
from tests.unit.services.world import World, bundle_of

_LEFT_ALONE = 4  # one of so many new sessions stays in the queue, so that there are some
_LIVE_MAX = 30  # sessions; the oldest one beyond expires
_UNLIMITED = 60_000
_A_DAY_S = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was asked, and with which status it was answered."""

    method: str
    path: str
    status: int


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Where it is, who may ask it what, and what it has answered."""

    url: str
    operator_key: str
    user_key: str
    answers: Sequence[Answer]


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
        owner = Principal(user_id=session.user_id, tier=session.tier)
        changes.send_message(self._world.deps, owner, session.id, "make it blue")
        self._change(session)

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


class KeysThatStay:
    """The keys of a store, of which nobody can revoke the first ones: who tries everything would
    lock themselves out, and learn nothing from then on."""

    def __init__(self, keys: ports.Keys) -> None:
        self._keys = keys
        self._first = {key.id for key in keys.list()}

    def revoke(self, key_id: KeyId, at: datetime) -> None:
        if key_id not in self._first:
            self._keys.revoke(key_id, at)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keys, name)


class Recorder:
    """ASGI middleware that notes each answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.answers: list[Answer] = []
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = Answer(
                    method=scope["method"], path=scope["path"], status=message["status"]
                )
                self.answers.append(answer)
            await send(message)

        await self._app(scope, receive, noting_send)


@contextlib.contextmanager
def installation(world: World, folder: Path) -> Iterator[Installation]:
    """Serve the public app of this world until the block ends."""
    hub = deaf_hub()
    hub.close()  # who waits for a change is answered at once
    world.add_host(slots=2 * _LIVE_MAX, region="eu", labels={"gpu": "yes"}, name="alpha")
    world.store.leases.hold("daemon", "here:1", later(365 * _A_DAY_S), NOW)
    operator_key = _new_key(world, "ops", Tier.OPERATOR, Role.OPERATOR)
    user_key = _new_key(world, "ci", Tier.PRO, Role.USER)
    world.store.keys = KeysThatStay(world.store.keys)  # type: ignore[misc]
    world.queue = WorkAtOnce(world)
    port = free_port()
    context = Context(
        # Where the proxy is asked whether it answers for us, we do.
        settings=config.make(state_dir=folder, control_port=port, access_log="off"),
        deps=world.deps,
        hub=hub,
        started_at=NOW,
        answers_kept_s=0.0,
    )
    app = Recorder(public_app.build(context))
    try:
        with serving(lambda: make_server(app, host="127.0.0.1", port=port, ws="none")):
            yield Installation(
                url=f"http://127.0.0.1:{port}",
                operator_key=operator_key,
                user_key=user_key,
                answers=app.answers,
            )
    finally:
        context.threads.shutdown()


@contextlib.contextmanager
def behind_proxy(url: str) -> Iterator[str]:
    """The URL under which a real nginx answers for this one. It refuses nobody for asking a lot."""
    limits = ClientLimits(
        requests_per_address=_UNLIMITED,
        starts_per_address=_UNLIMITED,
        polls_per_address=_UNLIMITED,
        transfers_per_address=_UNLIMITED,
        reads_per_address=_UNLIMITED,
        connections_per_address=_UNLIMITED,
    )
    address = url.removeprefix("http://")
    with running_world(api_addresses=(address,), limits=limits) as proxy:
        yield f"http://localhost:{proxy.settings.listen_port}"


def _new_key(world: World, name: str, tier: Tier, role: Role) -> str:
    return keys.create(world.deps, name, tier, role).secret
