"""The gateway's endpoints. The agent app serves them; agents/server.py builds one Gateway."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from orchestrator.domain import errors
from orchestrator.domain.llm import requests
from orchestrator.domain.llm.requests import ModelRequest
from orchestrator.domain.sessions.session import Session
from orchestrator.entrypoints.api.bounds.work_shares import SHARE, WorkShares, layers_of
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.gateway import pings, wire
from orchestrator.entrypoints.api.gateway.accounts import Accounts
from orchestrator.entrypoints.api.gateway.bodies import read_bounded
from orchestrator.entrypoints.api.gateway.call import CallRunner
from orchestrator.entrypoints.api.gateway.clients import Clients
from orchestrator.entrypoints.api.gateway.exchange import InFlight, Relay, Subscription
from orchestrator.entrypoints.api.gateway.limiter import Limiter
from orchestrator.entrypoints.api.gateway.provider_chain import ProviderChain
from orchestrator.entrypoints.api.gateway.providers.configured import configured_providers
from orchestrator.entrypoints.api.gateway.providers.provider import ProviderRequest
from orchestrator.entrypoints.api.gateway.shares import Shares, SlotLimits
from orchestrator.services.agents import access
from orchestrator.services.llm import spending
from orchestrator.services.rates import Rate, Rates
from orchestrator.slim import structlog

_LARGE_BYTES = 256 * 1024  # a larger body is parsed in a thread, so that it doesn't block the loop
# Of a session. Our agent counts once per answer at most, Claude Code two dozen times to show what
# fills its context.
_COUNT_RATE = Rate(per_s=2, burst=40)

log = structlog.get_logger()


class Gateway:
    """Serves agents the Messages API. Bytes pass unchanged; the credentials are replaced."""

    def __init__(
        self, context: Context, share: Rate = SHARE, ping_s: float = pings.INTERVAL_S
    ) -> None:
        """`share`: the processor time that reading the requests of one session may take at most.
        `ping_s`: how often the client of a stream that hasn't begun is told that it is awaited."""
        llm = context.settings.llm
        self._context = context
        self._clients = Clients(context.settings)
        chain = configured_providers(context.settings, self._clients)
        self._has_provider = bool(chain)
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._accounts = Accounts(context, self._holder)
        self._runner = CallRunner(
            ProviderChain(
                chain,
                retry_s=llm.provider_retry_s,
                silence_s=llm.provider_silence_s,
                metrics=context.metrics,
            ),
            Limiter(llm.provider_concurrency, llm.provider_queue_s, context.metrics),
            Shares(
                SlotLimits(session_s=llm.provider_session_s, user_s=llm.provider_user_s),
                context.metrics,
                time.monotonic,
            ),
            self._accounts,
            ping_s,
        )
        self._in_flight = InFlight()
        self._count_rates = Rates(_COUNT_RATE)
        self._work = WorkShares(context.metrics.agent_refusals.labels("work"), layers_of(share))

    async def forward(self, request: Request) -> Response:
        """POST /v1/messages and /v1/messages/count_tokens."""
        try:
            session = await self._context.look_up(
                access.authorize_generation, self._context.deps, wire.session_token(request)
            )
            self._check_rate(request, session)
            provider_request = await self._check(request, session)
        except errors.SpawnError as error:
            return _error_response(error)
        return Relay(lambda: self._join(session, provider_request))

    async def models(self, request: Request) -> Response:
        """GET /v1/models, and one of them: what SPAWN_MODELS allows."""
        try:
            await self._context.in_thread(
                access.authorize_generation, self._context.deps, wire.session_token(request)
            )
            models = [wire.model_info(name) for name in self._context.deps.policy.models]
            name = request.path_params.get("model_id")
            if name is None:
                return JSONResponse(wire.model_page(models))
            return JSONResponse(_model_named(name, models))
        except errors.SpawnError as error:
            return _error_response(error)

    async def run(self) -> None:
        """Renew this process's reservations before they expire. Runs until cancelled."""
        while True:
            await asyncio.sleep(spending.RENEW_S)
            try:
                await self._context.in_thread(spending.renew, self._context.deps, self._holder)
            except errors.Temporary as error:
                log.warning("reservation_renewal_failed", error=str(error))

    async def close(self) -> None:
        """Stop, after the servers. The order matters: cancel the calls first, then write their
        accounts, and close the connections last."""
        await self._in_flight.close()
        await self._accounts.close()
        await self._clients.close()

    def _check_rate(self, request: Request, session: Session) -> None:
        """Token counts cost nothing, so no budget bounds them."""
        if not _is_count(request):
            return
        wait_s = self._count_rates.take(session.id, asyncio.get_running_loop().time())
        if wait_s:
            raise errors.LimitReached(
                f"a session counts tokens at most {_COUNT_RATE.per_s:g} times a second",
                code="too_many_token_counts",
                retry_after_s=wait_s,
                limit=_COUNT_RATE.per_s,
            )

    async def _check(self, request: Request, session: Session) -> ProviderRequest:
        """Read a request and check it. Raises errors.SpawnError if it must not be forwarded."""
        if not self._has_provider:
            raise errors.Unauthorized("ANTHROPIC_API_KEY is not set", code="provider_auth")
        raw = await read_bounded(request, wire.BODY_MAX_BYTES)
        if raw is None:
            raise errors.TooLarge("the request is larger than the API takes")
        parsed, digest = await self._parse(session, raw, _is_count(request))
        spending.check_model(self._context.deps, parsed)
        return ProviderRequest(
            path=request.url.path,
            query=request.url.query,
            headers=wire.headers_for_provider(request),
            raw=raw,
            parsed=parsed,
            digest=digest,
        )

    async def _parse(
        self, session: Session, raw: bytes, is_count: bool
    ) -> tuple[ModelRequest, bytes]:
        def parse() -> tuple[ModelRequest, bytes]:
            with self._work.reading(session.id, session.user_id):
                return _parse(raw, is_count)

        if len(raw) < _LARGE_BYTES:
            return parse()
        return await self._context.in_thread(parse)

    def _join(self, session: Session, request: ProviderRequest) -> Subscription:
        """Join an equal request in progress, or start a call. Token counts are never shared."""
        if request.counts_tokens:
            return self._in_flight.join(
                secrets.token_hex(16),
                lambda exchange: self._runner.run_token_count(session, request, exchange),
            )
        subscription = self._in_flight.join(
            self._sharing_key(session, request),
            lambda exchange: self._runner.run(session, request, exchange),
        )
        hit = "no" if subscription.is_first else "yes"
        self._context.metrics.shared_requests.labels(hit).inc()
        return subscription

    def _sharing_key(self, session: Session, request: ProviderRequest) -> str:
        """The key that is the same for all requests that may share one answer."""
        is_shared = self._context.deps.policy.share_between_users
        versions = [f"{name}:{request.headers.get(name)}" for name in wire.VERSION_HEADERS]
        user = "" if is_shared else session.user_id
        parts = [user, request.path, request.query, *versions]
        return hashlib.sha256("\0".join(parts).encode() + request.digest).hexdigest()


def _is_count(request: Request) -> bool:
    return request.url.path.endswith("/count_tokens")


def _parse(raw: bytes, is_count: bool) -> tuple[ModelRequest, bytes]:
    parsed = requests.parse(raw, counting=is_count)
    return parsed, hashlib.sha256(requests.canonical_bytes(parsed)).digest()


def _model_named(name: str, models: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    for model in models:
        if model["id"] == name:
            return model
    raise errors.NotFound(f"model: {name[:100]} is not offered here", code="model_not_offered")


def _error_response(error: errors.SpawnError) -> Response:
    response = wire.error_response_for(error)
    head = response.head
    return Response(response.body, status_code=head.status, headers=dict(head.headers))
