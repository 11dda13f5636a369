"""The agent app: served on a UNIX socket only, for the agents inside sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import IO

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from orchestrator.adapters.agent_socket import HEALTH_PATH
from orchestrator.contract import wire
from orchestrator.contract.bundles import PACKED_MAX_BYTES
from orchestrator.contract.wire import trials as trial_wire
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SandboxId, SessionId, UserId
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import Failure, Phase, Report, Session
from orchestrator.entrypoints.api.agents.connections import REFUSED
from orchestrator.entrypoints.api.agents.door import (
    BUNDLE_PATH,
    GATEWAY,
    INBOX_PATH,
    TRIAL_PATH,
    Door,
)
from orchestrator.entrypoints.api.agents.limits import SenderLimits, Senders
from orchestrator.entrypoints.api.agents.walks import Walks
from orchestrator.entrypoints.api.bearer import bearer_of
from orchestrator.entrypoints.api.context import Context, context_of
from orchestrator.entrypoints.api.errors import problems
from orchestrator.entrypoints.api.gateway import wire as gateway_wire
from orchestrator.entrypoints.api.gateway.app import Gateway
from orchestrator.entrypoints.api.gateway.bodies import read_bounded, spool_bounded
from orchestrator.ports import topics
from orchestrator.services.agents import access, bundles, reports
from orchestrator.services.agents.inbox import Inbox, peek, visit

_INBOX_WAIT_MAX_S = 30.0
_INSPECTIONS = 2  # uploads that are in memory at a time
_DEFAULT_LIMITS = SenderLimits()


def build(
    context: Context,
    gateway: Gateway,
    limits: SenderLimits = _DEFAULT_LIMITS,
    walks: Walks | None = None,
) -> Starlette:
    """The ASGI app of the agent socket. `limits` bound each sandbox."""
    senders = Senders(context.metrics, time.monotonic, limits)
    app = Starlette(
        routes=[
            Route(HEALTH_PATH, health),
            Route(INBOX_PATH, inbox),
            Route(BUNDLE_PATH, get_bundle, methods=["GET"]),
            Route(BUNDLE_PATH, put_bundle, methods=["PUT"]),
            Route(TRIAL_PATH, trial, methods=["POST"]),
            Route("/sessions/{session_id}/progress", progress, methods=["POST"]),
            Route("/v1/messages", gateway.forward, methods=["POST"]),
            Route("/v1/messages/count_tokens", gateway.forward, methods=["POST"]),
            Route("/v1/models", gateway.models),
            Route("/v1/models/{model_id}", gateway.models),
        ],
        middleware=[Middleware(Door, tokens=context.deps.tokens, senders=senders)],
        exception_handlers={
            errors.SpawnError: _problem,
            HTTPException: _http_error,
            Exception: _unexpected,
        },
    )
    app.state.context = context
    app.state.senders = senders
    app.state.inspections = asyncio.Semaphore(_INSPECTIONS)
    app.state.walks = walks or Walks(context)
    return app


async def health(request: Request) -> Response:
    """Which process this is. The daemon asks, to know that agents can be heard."""
    return JSONResponse({"process": context_of(request).process})


async def inbox(request: Request) -> Response:
    """Long poll: what this sandbox should run. The first one is how an agent dials home."""
    context = context_of(request)
    sandbox_id = context.deps.tokens.read_sandbox(_token(request))
    have = request.query_params.get("have", "")
    ends = time.monotonic() + min(_wait_of(request), _INBOX_WAIT_MAX_S)
    topic = topics.topic_of(topics.INBOX, sandbox_id)
    with _senders(request).poll(sandbox_id), context.hub.watch(topic) as watch:
        answer = await context.in_thread(_visit, context, sandbox_id, have)
        while answer.assignment is None:
            left = ends - time.monotonic()
            if left <= 0 or context.hub.closed or await request.is_disconnected():
                return Response(status_code=204)
            # An event that is lost comes from LostWakeUps, if this process hears any.
            is_woken = await watch.wait(min(left, context.hub.recheck_s))
            if is_woken or not context.hub.is_listening:
                answer = await context.look_up(_look, context, sandbox_id, have)
    return JSONResponse({"assignment": answer.assignment})


async def progress(request: Request) -> Response:
    """A report. Late and repeated ones are dropped, and the agent is told so."""
    context = context_of(request)
    session_id = SessionId(request.path_params["session_id"])
    if not ids.is_id(session_id, "ses"):
        raise errors.NotFound("there is no such session", code="session_unknown")
    token, senders = _token(request), _senders(request)
    session = await context.look_up(access.authorize, context.deps, token, session_id)
    sandbox_id = context.deps.tokens.read_session(token).sandbox_id
    senders.set_owner(sandbox_id, session.user_id)
    raw = await _read_report(request, senders, sandbox_id)
    async with senders.report_turn(session.user_id):
        accepted = await context.in_thread(_take, context, senders, token, session, raw)
    return JSONResponse({"accepted": accepted})


async def _read_report(request: Request, senders: Senders, sandbox_id: SandboxId) -> bytes:
    limit = wire.REPORT_MAX_BYTES
    try:
        raw = await read_bounded(request, limit, senders.report(sandbox_id))
        if raw is None:
            raise errors.TooLarge(f"a report has at most {limit} bytes", limit_bytes=limit)
    except errors.SpawnError:
        request.scope["state"][REFUSED] = True  # nobody reads the rest: the connection ends
        raise
    return raw


async def get_bundle(request: Request) -> Response:
    """The bundle of the present assignment."""
    context = context_of(request)
    token = _token(request)
    sandbox_id = context.deps.tokens.read_session(token).sandbox_id
    with contextlib.ExitStack() as held:
        held.enter_context(_senders(request).transfer(sandbox_id))
        count = held.enter_context(_senders(request).body(sandbox_id))
        digest, data = await context.in_thread(_bundle, context, token)
        count(len(data))  # it may take a minute to be taken
        return _BundleResponse(digest, data, held.pop_all())


async def put_bundle(request: Request) -> Response:
    """What the sandbox runs, to be kept as the session's next version."""
    context = context_of(request)
    token = _token(request)
    session = await context.look_up(access.authorize, context.deps, token)
    sandbox_id = context.deps.tokens.read_session(token).sandbox_id
    _senders(request).set_owner(sandbox_id, session.user_id)
    folder = context.settings.places.state_dir
    claimed = request.headers.get("x-spawn-sha256", "")
    healthy = request.headers.get("x-spawn-healthy", "1") != "0"
    with _senders(request).upload(sandbox_id):
        file = await spool_bounded(request, PACKED_MAX_BYTES, folder, context.in_thread)
        if file is None:
            raise errors.TooLarge(
                f"a bundle is at most {PACKED_MAX_BYTES} bytes large", limit_bytes=PACKED_MAX_BYTES
            )
        with file:
            async with request.app.state.inspections:
                version = await context.in_thread(_keep, context, token, file, claimed, healthy)
    return JSONResponse({"version": version}, status_code=201)


async def trial(request: Request) -> Response:
    """The version that the sandbox tries, opened at its public address."""
    context = context_of(request)
    token = _token(request)
    sandbox_id = context.deps.tokens.read_session(token).sandbox_id
    raw = await read_bounded(request, trial_wire.REQUEST_MAX_BYTES)
    if raw is None:
        limit = trial_wire.REQUEST_MAX_BYTES
        raise errors.TooLarge(f"a trial has at most {limit} bytes", limit_bytes=limit)
    try:
        secret = wire.parse_secret(wire.decode(raw, "trial"))
    except wire.ProtocolError as error:
        raise errors.InvalidInput(str(error), field=error.field) from error
    walks: Walks = request.app.state.walks
    with _senders(request).trial(sandbox_id):
        return JSONResponse((await walks.try_version(token, secret)).as_json())


class _BundleResponse(Response):
    """A bundle. Its sandbox gets no other one before it has taken this one."""

    def __init__(self, digest: str, data: bytes, held: contextlib.ExitStack) -> None:
        super().__init__(data, media_type="application/gzip", headers={"ETag": f'"{digest}"'})
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


def _visit(context: Context, sandbox_id: SandboxId, have: str) -> Inbox:
    return visit(context.deps, sandbox_id, have)


def _look(context: Context, sandbox_id: SandboxId, have: str) -> Inbox:
    sandbox = context.deps.store.sandboxes.get(sandbox_id)
    if sandbox.state is SandboxState.CREATING:
        return Inbox(assignment=None)
    return peek(context.deps, sandbox, have)


def _take(context: Context, senders: Senders, token: str, session: Session, raw: bytes) -> bool:
    sender = context.deps.tokens.read_session(token).sandbox_id
    report = _parse(senders, sender, session.user_id, raw)
    session = access.authorize(context.deps, token, session.id)  # it may have ended meanwhile
    return reports.record_report(context.deps, session, sender, _fact(report), list(report.logs))


def _parse(senders: Senders, sandbox_id: SandboxId, user_id: UserId, raw: bytes) -> wire.Report:
    with senders.work.reading(sandbox_id, user_id):
        try:
            return wire.parse_report(wire.decode(raw, "report"))
        except wire.ProtocolError as error:
            raise errors.InvalidInput(str(error), field=error.field) from error


def _fact(report: wire.Report) -> Report:
    """What a session remembers of a report. What doesn't go with the phase is left out."""
    is_ready = report.phase is Phase.READY
    failed_change = report.outcome.failure if report.outcome is not None else None
    return Report(
        seq=report.seq,
        phase=report.phase,
        progress=report.progress,
        message=report.message,
        failure=_failure(report.failure) if report.phase is Phase.FAILED else None,
        summary=(report.summary or "") if is_ready else "",
        setback=_failure(failed_change) if is_ready else None,
    )


def _failure(failure: wire.Failure | None) -> Failure | None:
    if failure is None:
        return None
    return Failure(code=failure.code, message=failure.message, permanent=failure.permanent)


def _bundle(context: Context, token: str) -> tuple[str, bytes]:
    session = access.authorize(context.deps, token)
    sender = context.deps.tokens.read_session(token).sandbox_id
    return bundles.bundle_for(context.deps, session, sender)


def _keep(context: Context, token: str, file: IO[bytes], claimed: str, healthy: bool) -> int:
    session = access.authorize(context.deps, token)  # it may have ended during the upload
    data = file.read()
    return bundles.keep_bundle(context.deps, session, data, claimed, healthy=healthy).version


def _token(request: Request) -> str:
    token = bearer_of(request)
    if token is None:
        raise errors.Unauthorized("agents send their token as `Authorization: Bearer …`")
    return token


def _senders(request: Request) -> Senders:
    senders: Senders = request.app.state.senders
    return senders


def _wait_of(request: Request) -> float:
    try:
        return max(0.0, float(request.query_params.get("wait", "0")))
    except ValueError:
        return 0.0


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.SpawnError)
    context_of(request).metrics.agent_refusals.labels(error.code).inc()
    return problems.from_error(error)


async def _http_error(request: Request, error: Exception) -> Response:
    """A path or a method that isn't offered, in the terms of the API that was asked."""
    assert isinstance(error, HTTPException)
    return _in_terms_of(request, error.status_code, error.detail, error.headers or {})


async def _unexpected(request: Request, _: Exception) -> Response:
    """The answer alone. The error goes on to `failures`, which writes it down."""
    return _in_terms_of(request, 500, "something went wrong on our side; the log says what", {})


def _in_terms_of(
    request: Request, status: int, message: str, headers: Mapping[str, str]
) -> Response:
    if not request.url.path.startswith(GATEWAY):
        code = {404: "not_found", 405: "method_not_allowed"}.get(status, "internal")
        return problems.problem(status, code, message, headers=headers)
    response = gateway_wire.http_error(status, message, headers)
    return Response(response.body, response.head.status, dict(response.head.headers))
