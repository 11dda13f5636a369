"""The agent app: served on a UNIX socket only, for the agents inside sandboxes."""

from __future__ import annotations

import time
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchestrator.adapters.redis.events import INBOX
from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId, SessionId
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.bundles import PACKED_MAX_BYTES
from orchestrator.domain.sessions.session import Failure, Phase, Report
from orchestrator.entrypoints.api import problems
from orchestrator.entrypoints.api.auth import bearer_of
from orchestrator.entrypoints.api.bodies import read_bounded
from orchestrator.entrypoints.api.context import Context, context_of
from orchestrator.entrypoints.api.gateway.app import Gateway
from orchestrator.services.agents import access, bundles, reports
from orchestrator.services.agents.inbox import Inbox, peek, visit

_INBOX_WAIT_MAX_S = 30.0
_REPORT_MAX_BYTES = 1024 * 1024


class ReportError(BaseModel):
    """Why an agent gave up."""

    code: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]
    message: Annotated[str, StringConstraints(max_length=4000)]
    permanent: bool = True


class ChangeOutcome(BaseModel):
    """How a change of a running app ended."""

    ok: bool
    code: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")] = "generation_failed"
    message: Annotated[str, StringConstraints(max_length=4000)] = ""
    permanent: bool = True


class ReportBody(BaseModel):
    """One report of an agent, as it comes over the wire."""

    model_config = ConfigDict(extra="ignore")

    seq: Annotated[int, Field(ge=1)]
    phase: Phase
    progress: Annotated[int, Field(ge=0, le=100)]
    message: Annotated[str, StringConstraints(max_length=200)] = ""
    logs: Annotated[list[Annotated[str, StringConstraints(max_length=4000)]], Field(max_length=500)]
    error: ReportError | None = None
    summary: Annotated[str, StringConstraints(max_length=4000)] | None = None
    change: ChangeOutcome | None = None

    def as_report(self) -> Report:
        ready = self.phase is Phase.READY
        failed = self.error if self.phase is Phase.FAILED else None
        undone = self.change if ready and self.change is not None and not self.change.ok else None
        return Report(
            seq=self.seq,
            phase=self.phase,
            progress=self.progress,
            message=self.message,
            failure=_failure(failed),
            summary=(self.summary or "") if ready else "",
            setback=_failure(undone),
        )


def _failure(said: ReportError | ChangeOutcome | None) -> Failure | None:
    if said is None:
        return None
    return Failure(code=said.code, message=said.message, permanent=said.permanent)


def build(context: Context, gateway: Gateway) -> Starlette:
    """The ASGI app of the agent socket."""
    app = Starlette(
        routes=[
            Route("/agent/inbox", inbox),
            Route("/agent/bundle", get_bundle, methods=["GET"]),
            Route("/agent/bundle", put_bundle, methods=["PUT"]),
            Route("/sessions/{session_id}/progress", progress, methods=["POST"]),
            Route("/v1/messages", gateway.forward, methods=["POST"]),
            Route("/v1/messages/count_tokens", gateway.forward, methods=["POST"]),
        ],
        exception_handlers={errors.SpawnError: _problem},
    )
    app.state.context = context
    return app


async def inbox(request: Request) -> Response:
    """Long poll: what this sandbox should run. The first one is how an agent dials home."""
    context = context_of(request)
    sandbox_id = context.deps.tokens.read_sandbox(_token(request))
    have = request.query_params.get("have", "")
    ends = time.monotonic() + min(_wait_of(request), _INBOX_WAIT_MAX_S)
    with context.hub.watch(INBOX + sandbox_id) as watch:
        answer = await context.in_thread(_visit, context, sandbox_id, have)
        while answer.assignment is None:
            left = ends - time.monotonic()
            if left <= 0 or context.hub.closed:
                return Response(status_code=204)
            await watch.news(min(left, context.hub.recheck_s))
            answer = await context.look_up(_look, context, sandbox_id, have)
    return JSONResponse({"assignment": answer.assignment})


async def progress(request: Request) -> Response:
    """A report. Late and repeated ones are dropped, and the agent is told so."""
    context = context_of(request)
    session_id = SessionId(request.path_params["session_id"])
    raw = await read_bounded(request, _REPORT_MAX_BYTES)
    if raw is None:
        raise errors.TooLarge("a report has at most 1 MiB", limit_bytes=_REPORT_MAX_BYTES)
    accepted = await context.in_thread(_report, context, _token(request), session_id, raw)
    return JSONResponse({"accepted": accepted})


async def get_bundle(request: Request) -> Response:
    """The bundle of the present assignment."""
    context = context_of(request)
    digest, data = await context.in_thread(_bundle, context, _token(request))
    return Response(data, media_type="application/gzip", headers={"ETag": f'"{digest}"'})


async def put_bundle(request: Request) -> Response:
    """What the sandbox runs, to be kept as the session's next version."""
    context = context_of(request)
    token = _token(request)
    data = await read_bounded(request, PACKED_MAX_BYTES)
    if data is None:
        raise errors.TooLarge(
            f"a bundle has at most {PACKED_MAX_BYTES} bytes", limit_bytes=PACKED_MAX_BYTES
        )
    claimed = request.headers.get("x-spawn-sha256", "")
    healthy = request.headers.get("x-spawn-healthy", "1") != "0"
    version = await context.in_thread(_keep, context, token, data, claimed, healthy)
    return JSONResponse({"version": version}, status_code=201)


def _visit(context: Context, sandbox_id: SandboxId, have: str) -> Inbox:
    return visit(context.deps, sandbox_id, have)


def _look(context: Context, sandbox_id: SandboxId, have: str) -> Inbox:
    box = context.deps.store.sandboxes.get(sandbox_id)
    if box.state is SandboxState.CREATING:
        return Inbox(assignment=None)
    return peek(context.deps, box, have)


def _report(context: Context, token: str, session_id: SessionId, raw: bytes) -> bool:
    found = access.authorize(context.deps, token, session_id)
    try:
        body = ReportBody.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise errors.InvalidInput(f"{field}: {first['msg']}", field=field) from error
    sender = context.deps.tokens.read_session(token).sandbox_id
    return reports.report(context.deps, found, sender, body.as_report(), body.logs)


def _bundle(context: Context, token: str) -> tuple[str, bytes]:
    found = access.authorize(context.deps, token)
    sender = context.deps.tokens.read_session(token).sandbox_id
    return bundles.bundle_for(context.deps, found, sender)


def _keep(context: Context, token: str, data: bytes, claimed: str, healthy: bool) -> int:
    found = access.authorize(context.deps, token)
    return bundles.keep_bundle(context.deps, found, data, claimed, healthy=healthy).version


def _token(request: Request) -> str:
    token = bearer_of(request)
    if token is None:
        raise errors.Unauthorized("agents send their token as `Authorization: Bearer …`")
    return token


def _wait_of(request: Request) -> float:
    try:
        return max(0.0, float(request.query_params.get("wait", "0")))
    except ValueError:
        return 0.0


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, errors.SpawnError)
    return problems.from_error(error)
