"""The agent app with its gateway on a UNIX socket, in front of providers that count."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import anthropic
import httpx2
import redis.asyncio
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
from orchestrator.entrypoints.api.gateway.app import Gateway
from orchestrator.entrypoints.api.hub import Hub
from orchestrator.services.deps import Deps
from tests.fakes import samples

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
    """One api process's agent app, without the process."""

    context: Context
    socket: Path
    _clients: list[httpx2.Client] = field(default_factory=list)

    @property
    def deps(self) -> Deps:
        return self.context.deps

    def session(self, user_id: UserId | None = None) -> Session:
        """One whose app is being written."""
        made = samples.session(
            state=SessionState.GENERATING,
            user_id=user_id or ids.new_user_id(),
            sandbox_id=ids.new_sandbox_id(),
        )
        return self.deps.store.sessions.add(made, None, max_active=10_000)

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
        """One request, answered whole."""
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
        return self.context.board.registry.get_sample_value(name, labels) or 0.0

    def accounts(self, session: Session) -> list[tuple[str, int, int, int]]:
        """(provider, calls, tokens, micro-dollars) of a session's calls that are over."""
        return [
            (one.key, one.calls, one.counts.total, one.micro_usd)
            for one in self.deps.store.usage.of_session(session.id)
        ]

    def close(self) -> None:
        for client in self._clients:
            client.close()


class HasUrl(Protocol):
    """A provider of this process or of another one."""

    @property
    def url(self) -> str: ...


def settings_for(folder: Path, provider: HasUrl | None, **changes: Any) -> Settings:
    """Settings of an installation in `folder` whose key is KEY; nothing from the environment."""
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
    settings: Settings, migrated: Path, budgets: Budgets | None = None
) -> Iterator[GatewayWorld]:
    """Serve until the block ends. `budgets` in place of those of the settings."""
    if not (settings.places.state_dir / "store.db").exists():
        shutil.copy(migrated, settings.places.state_dir / "store.db")
    deps = bootstrap.build(settings, bootstrap.NoEngines())
    if budgets is not None:
        deps = replace(deps, policy=replace(deps.policy, budgets=budgets))
    context = Context(
        settings=settings,
        deps=deps,
        hub=Hub(redis.asyncio.Redis()),  # never connected to: nothing here waits for news
        started_at=datetime.now(UTC),
    )
    served = _Served(context, settings.places.state_dir / "agent.sock")
    world = GatewayWorld(context=context, socket=served.socket)
    served.thread.start()
    try:
        assert served.listening.wait(10)
        yield world
    finally:
        world.close()
        served.server.should_exit = True
        served.thread.join(20)
        assert not served.thread.is_alive(), "the gateway did not stop within 20 s"
        deps.store.close()


class _Served:
    """The agent app in a thread with a loop of its own, as server.py runs it."""

    def __init__(self, context: Context, socket: Path) -> None:
        self.socket = socket
        self.listening = threading.Event()
        self._context = context
        self.server: _Server
        gateway = Gateway(context)
        self._gateway = gateway
        config = uvicorn.Config(
            app.build(context, gateway),
            uds=str(socket),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        self.server = _Server(config, self.listening)
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        keeping = asyncio.create_task(self._gateway.run())
        try:
            await self.server.serve()
        finally:
            keeping.cancel()
            await self._gateway.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, listening: threading.Event) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._listening.set()


def events_of(raw: bytes) -> list[dict[str, Any]]:
    """The events of a stream."""
    return [
        json.loads(line.removeprefix(b"data: "))
        for line in raw.split(b"\n")
        if line.startswith(b"data: ")
    ]
