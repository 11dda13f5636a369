"""The gateway's two endpoints, as the agent app serves them. Built by server.py, once."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import socket

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.domain import errors
from orchestrator.domain.llm import requests
from orchestrator.domain.llm.requests import Ask
from orchestrator.domain.sessions.session import Session
from orchestrator.entrypoints.api.bodies import read_bounded
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.gateway import providers, wire
from orchestrator.entrypoints.api.gateway.call import Calls
from orchestrator.entrypoints.api.gateway.chain import Chain
from orchestrator.entrypoints.api.gateway.exchange import InFlight, Joined, Relay
from orchestrator.entrypoints.api.gateway.limiter import Limiter
from orchestrator.entrypoints.api.gateway.providers import Outgoing
from orchestrator.services.agents import access
from orchestrator.services.llm import spending
from orchestrator.slim import structlog

_LARGE_BYTES = 256 * 1024  # more is read beside the event loop

log = structlog.get_logger()


class Gateway:
    """Takes requests of agents; bytes pass as they come, credentials are exchanged."""

    def __init__(self, context: Context) -> None:
        settings = context.settings
        self._context = context
        self._client = providers.client_for(settings)
        chain = providers.chain_of(settings, self._client)
        self._configured = bool(chain)
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._calls = Calls(
            context,
            Chain(chain, settings.llm.provider_retry_s, context.board),
            Limiter(
                settings.llm.provider_concurrency, settings.llm.provider_queue_s, context.board
            ),
            self._holder,
        )
        self._in_flight = InFlight()

    async def forward(self, request: Request) -> Response:
        """POST /v1/messages and /v1/messages/count_tokens."""
        try:
            session = await self._context.look_up(
                access.authorize_generation, self._context.deps, wire.token_of(request)
            )
            call = await self._outgoing(request)
        except errors.SpawnError as error:
            return _refused(error)
        return Relay(lambda: self._join(session, call))

    async def run(self) -> None:
        """Keep what this process has set aside from running out. Until cancelled."""
        while True:
            await asyncio.sleep(spending.RENEW_S)
            try:
                await self._context.in_thread(spending.renew, self._context.deps, self._holder)
            except errors.Temporary as error:
                log.warning("reservations can't be renewed yet", why=str(error))

    async def close(self) -> None:
        """After the servers: cancelled calls are accounted first, then connections closed."""
        await self._in_flight.close()
        await self._calls.close()
        await self._client.aclose()

    async def _outgoing(self, request: Request) -> Outgoing:
        if not self._configured:
            raise errors.Unauthorized("ANTHROPIC_API_KEY is not set", code="provider_auth")
        raw = await read_bounded(request, wire.BODY_MAX_BYTES)
        if raw is None:
            raise errors.TooLarge("the request is larger than the API takes")
        ask, digest = await self._read(raw, request.url.path.endswith("/count_tokens"))
        spending.check_model(self._context.deps, ask)
        return Outgoing(
            path=request.url.path,
            query=request.url.query,
            headers=wire.headers_up(request),
            raw=raw,
            ask=ask,
            digest=digest,
        )

    async def _read(self, raw: bytes, counting: bool) -> tuple[Ask, bytes]:
        if len(raw) < _LARGE_BYTES:
            return _read(raw, counting)
        return await self._context.in_thread(_read, raw, counting)

    def _join(self, session: Session, call: Outgoing) -> Joined:
        if call.counting:
            return self._in_flight.join(
                secrets.token_hex(16), lambda exchange: self._calls.count(session, call, exchange)
            )
        joined = self._in_flight.join(
            self._key(session, call), lambda exchange: self._calls.make(session, call, exchange)
        )
        self._context.board.shared.labels("no" if joined.led else "yes").inc()
        return joined

    def _key(self, session: Session, call: Outgoing) -> str:
        """What two requests have in common that may share one answer."""
        shared = self._context.deps.policy.share_between_users
        versions = [f"{name}:{call.headers.get(name)}" for name in wire.VERSIONING]
        parts = ["" if shared else session.user_id, call.path, call.query, *versions]
        return hashlib.sha256("\0".join(parts).encode() + call.digest).hexdigest()


def _read(raw: bytes, counting: bool) -> tuple[Ask, bytes]:
    ask = requests.read(raw, counting=counting)
    return ask, hashlib.sha256(requests.canonical(ask)).digest()


def _refused(error: errors.SpawnError) -> Response:
    said = wire.refusal_of(error)
    return Response(said.body, status_code=said.head.status, headers=dict(said.head.headers))
