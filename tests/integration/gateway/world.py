"""The agent app with its gateway, on a UNIX socket. The tests put fake providers behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import anthropic
import httpx2
import uvicorn

from orchestrator import bootstrap, config
from orchestrator.config import Settings
from orchestrator.domain import ids
from orchestrator.domain.ids import UserId
from orchestrator.domain.llm.budgets import Budgets
from orchestrator.domain.people.tokens import SessionGrant
from orchestrator.domain.sessions.session import Session, SessionState
from orchestrator.entrypoints.api.agents import app
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.gateway import pings
from orchestrator.entrypoints.api.gateway.app import Gateway
from orchestrator.services.deps import Deps
from tests.fakes import samples
from tests.fakes.hub import deaf_hub

KEY = "sk-the-real-key-that-stays-at-home"
MODEL = "claude-sonnet-5-5"
BODY: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello"}],
}
TOOL = {
    "name": "write_file",
    "description": "Write it.",
    "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}},
}


@dataclass(kw_only=True)
class GatewayWorld:
    """The agent app of an api process, in a thread of the test."""

    context: Context
    socket: Path
    _clients: list[httpx2.Client] = field(default_factory=list)

    @property
    def deps(self) -> Deps:
        return self.context.deps

    def session(self, user_id: UserId | None = None) -> Session:
        """A session whose app is being written."""
        session = samples.session(
            state=SessionState.GENERATING,
            user_id=user_id or ids.new_user_id(),
            sandbox_id=ids.new_sandbox_id(),
        )
        return self.deps.store.sessions.add(session, None, max_active=10_000)

    def token(self, session: Session) -> str:
        assert session.sandbox_id is not None
        return self.deps.tokens.for_session(
            SessionGrant(
                session_id=session.id, attempt=session.attempt, sandbox_id=session.sandbox_id
            )
        )

    def http(self) -> httpx2.Client:
        client = httpx2.Client(
            transport=httpx2.HTTPTransport(uds=str(self.socket)), base_url="http://home", timeout=30
        )
        self._clients.append(client)
        return client

    def ask(
        self, session: Session, *, path: str = "/v1/messages", client: Any = None, **changes: Any
    ) -> httpx2.Response:
        """Make one request, and return its whole answer."""
        headers = {"x-api-key": self.token(session), "anthropic-version": "2023-06-01"}
        body = {**BODY, **changes}
        answer: httpx2.Response = (client or self.http()).post(path, json=body, headers=headers)
        return answer

    def sdk(self, session: Session) -> anthropic.Anthropic:
        return anthropic.Anthropic(
            api_key=self.token(session),
            base_url="http://home",
            max_retries=0,
            http_client=self.http(),
        )

    def sdk_async(self, session: Session) -> anthropic.AsyncAnthropic:
        transport = httpx2.AsyncHTTPTransport(uds=str(self.socket))
        return anthropic.AsyncAnthropic(
            api_key=self.token(session),
            base_url="http://home",
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=transport),
        )

    def metric(self, name: str, **labels: str) -> float:
        return self.context.metrics.registry.get_sample_value(name, labels) or 0.0

    def accounts(self, session: Session) -> list[tuple[str, int, int, int]]:
        """A session's accounted calls: (provider, calls, tokens, micro-dollars) per provider."""
        return [
            (row.key, row.calls, row.counts.total, row.micro_usd)
            for row in self.deps.store.usage.session_sums(session.id)
        ]

    def close(self) -> None:
        for client in self._clients:
            client.close()


class HasUrl(Protocol):
    """A provider in this process or in another one."""

    @property
    def url(self) -> str: ...


def settings_for(folder: Path, provider: HasUrl | None, **changes: Any) -> Settings:
    """Settings of an installation in `folder`, with KEY as its key."""
    fields: dict[str, Any] = {
        "anthropic_api_key": KEY if provider else "",
        "anthropic_base_url": provider.url if provider else "http://127.0.0.1:9",
        "state_dir": folder,
        "database_url": f"sqlite:///{folder / 'store.db'}",
        **changes,
    }
    return config.make(**fields)


@contextlib.contextmanager
def gateway_for(
    settings: Settings,
    migrated: Path,
    budgets: Budgets | None = None,
    ping_s: float = pings.INTERVAL_S,
) -> Iterator[GatewayWorld]:
    """Serve until the block ends. `budgets` replaces the budgets of the settings."""
    if not (settings.places.state_dir / "store.db").exists():
        shutil.copy(migrated, settings.places.state_dir / "store.db")
    deps = bootstrap.build(settings, bootstrap.NoEngines())
    if budgets is not None:
        deps = replace(deps, policy=replace(deps.policy, budgets=budgets))
    context = Context(
        settings=settings,
        deps=deps,
        hub=deaf_hub(),
        started_at=datetime.now(UTC),
    )
    server = _ServerThread(context, settings.places.state_dir / "agent.sock", ping_s)
    world = GatewayWorld(context=context, socket=server.socket)
    server.thread.start()
    try:
        assert server.listening.wait(10)
        yield world
    finally:
        world.close()
        server.uvicorn.should_exit = True
        server.thread.join(20)
        assert not server.thread.is_alive(), "the gateway did not stop within 20 s"
        deps.store.close()


class _ServerThread:
    """Runs the agent app in a thread with its own event loop, like server.py."""

    def __init__(self, context: Context, socket: Path, ping_s: float) -> None:
        self.socket = socket
        self.listening = threading.Event()
        self._context = context
        self._gateway = Gateway(context, ping_s=ping_s)
        config = uvicorn.Config(
            app.build(context, self._gateway),
            uds=str(socket),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        self.uvicorn = _Server(config, self.listening)
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        renewing = asyncio.create_task(self._gateway.run())
        try:
            await self.uvicorn.serve()
        finally:
            renewing.cancel()
            await self._gateway.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, listening: threading.Event) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._listening.set()


def wait_until(is_true: Callable[[], bool]) -> None:
    """Wait for a condition, 20 s at most."""
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    pause = threading.Event()
    while not is_true():
        assert datetime.now(UTC) < deadline, "this did not become true within 20 s"
        pause.wait(0.005)


def events_of(raw: bytes) -> list[dict[str, Any]]:
    """The events of a stream."""
    return [
        json.loads(line.removeprefix(b"data: "))
        for line in raw.split(b"\n")
        if line.startswith(b"data: ")
    ]
