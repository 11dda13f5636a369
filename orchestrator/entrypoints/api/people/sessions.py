"""Endpoints for users: sessions, status, templates."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from orchestrator.adapters.files import bundle_store
from orchestrator.adapters.redis.events import SESSION
from orchestrator.domain import duration, errors
from orchestrator.domain.people.access import Principal
from orchestrator.domain.pool.host import Wish
from orchestrator.domain.sessions.session import Session
from orchestrator.entrypoints.api import auth, views
from orchestrator.entrypoints.api.auth import Caller
from orchestrator.entrypoints.api.context import Context, context_of
from orchestrator.services.agents import assignments
from orchestrator.services.sessions import requests as service
from orchestrator.services.sessions import versions

router = APIRouter(prefix="/api", tags=["sessions"])

STATUS_PATH = "/api/status/{session_id}"
WAIT_MAX_S = 60.0
IDEMPOTENCY_KEY_MAX = 255
_NO_CACHE = {"Cache-Control": "private, no-cache"}


class NewSession(BaseModel):
    """What to build, and for how long."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=False)

    prompt: str = ""
    template: str | None = None
    ttl: str | int | None = None
    fresh: bool = Field(
        default=False, description="Ask Claude even if the same was made within the last hour."
    )
    region: str = Field(default="", description="Of the host that it is to run on; empty: any.")
    labels: dict[str, str] = Field(
        default={}, description="That its host has to have, all of them."
    )


class Extension(BaseModel):
    """A new time to live, counted from now."""

    model_config = ConfigDict(extra="forbid")

    ttl: str | int


@router.post("/sessions", status_code=202)
def create(
    request: Request,
    who: Caller,
    body: NewSession,
    idempotency_key: Annotated[str | None, Header(max_length=IDEMPOTENCY_KEY_MAX)] = None,
) -> Response:
    """Ask for an app. Answers at once; `/api/status/{id}` tells how it goes on."""
    context = context_of(request)
    asked = service.Request(
        prompt=body.prompt,
        template=body.template or None,
        ttl_s=None if body.ttl is None else duration.parse(body.ttl),
        idempotency_key=idempotency_key,
        wish=Wish(region=body.region, labels=body.labels),
        fresh=body.fresh,
    )
    made = service.create(context.deps, who, asked)
    if made.template is None:
        context.board.generations.labels("yes" if made.reused else "no").inc()
    return _answer(context, made, status_code=202, location=f"/api/status/{made.id}")


@router.get("/sessions")
def list_own(
    request: Request, who: Caller, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> dict[str, Any]:
    """The caller's own sessions, newest first."""
    context = context_of(request)
    found = context.deps.store.sessions.list(user_id=who.user_id, limit=limit)
    return {"sessions": [describe(context, one) for one in found]}


@router.get(
    "/status/{session_id}",
    openapi_extra={
        "parameters": [
            {
                "name": "wait",
                "in": "query",
                "required": False,
                "schema": {"type": "number", "minimum": 0, "maximum": WAIT_MAX_S},
                "description": "Seconds to wait for something to change.",
            }
        ]
    },
)
async def status_documented(request: Request, session_id: str) -> Response:
    """How a session is. With `If-None-Match`, 304 when nothing changed; with `wait`, answers as
    soon as something does."""
    del session_id  # for the docs; `status` reads it from the path
    return await status(request)


async def status(request: Request) -> Response:
    """The same, called straight from public_app's first route."""
    context = context_of(request)
    session_id = request.path_params["session_id"]
    wait_s = _wait_of(request)
    known = request.headers.get("if-none-match")
    if wait_s <= 0:
        return await context.look_up(_status, context, request, session_id, known)
    return await _wait_for_change(context, request, session_id, known, wait_s)


@router.post("/sessions/{session_id}/extend")
def extend(request: Request, who: Caller, session_id: str, body: Extension) -> Response:
    """Let an app live for longer, counted from now."""
    context = context_of(request)
    found = service.extend(context.deps, who, session_id, duration.parse(body.ttl))
    return _answer(context, found)


@router.delete("/sessions/{session_id}", status_code=202)
def end(request: Request, who: Caller, session_id: str) -> Response:
    """Let an app end now."""
    context = context_of(request)
    found = service.end(context.deps, who, session_id)
    return _answer(context, found, status_code=202)


@router.get("/sessions/{session_id}/logs")
def logs(
    request: Request,
    who: Caller,
    session_id: str,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> dict[str, Any]:
    """The last lines that the app printed."""
    context = context_of(request)
    found = service.get(context.deps, who, session_id)
    lines = context.deps.store.logs.tail(found.id, limit)
    return {"lines": [{"at": line.at.isoformat(), "text": line.text} for line in lines]}


@router.get("/sessions/{session_id}/bundle")
def bundle(
    request: Request,
    who: Caller,
    session_id: str,
    version: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """The source of the app, as a zip file."""
    deps = context_of(request).deps
    found = service.get(deps, who, session_id)
    digest = found.bundle
    if version is not None:
        digest = versions.numbered(deps, found, version).sha256
    if digest is None:
        raise errors.NotFound("this session has no version yet", code="version_unknown")
    data = assignments.load_bundle(deps.catalog, deps.bundles, digest)
    name = f"{found.template or 'app'}-{found.id[4:12]}.zip"
    return Response(
        bundle_store.as_zip(data),
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.get("/templates", tags=["templates"])
def templates(request: Request) -> dict[str, Any]:
    """Apps that start at once, without Claude."""
    return views.templates(context_of(request).deps.catalog.list())


def describe(context: Context, found: Session) -> dict[str, Any]:
    """A session as its owner sees it."""
    return _status_of(context, found, beside(context, found))


def beside(context: Context, found: Session) -> views.Beside:
    """What belongs to a session and isn't in its row."""
    deps = context.deps
    return views.Beside(
        position=service.queue_position(deps, found),
        change=deps.store.changes.get(found.id, found.turns.given) if found.changing else None,
        offer=service.offer(deps, found),
    )


def _status_of(context: Context, found: Session, aside: views.Beside) -> dict[str, Any]:
    return views.status(found, aside, context.deps.clock.now(), context.settings)


def _answer(
    context: Context, found: Session, *, status_code: int = 200, location: str | None = None
) -> Response:
    aside = beside(context, found)
    headers = {"ETag": views.etag(found, aside.position), **_NO_CACHE}
    if location is not None:
        headers["Location"] = location
    body = _status_of(context, found, aside)
    return JSONResponse(body, status_code=status_code, headers=headers)


def _status(context: Context, request: Request, session_id: str, known: str | None) -> Response:
    who = auth.principal(request)
    return _fresh(context, who, session_id, known) or Response(status_code=304, headers=_NO_CACHE)


def _fresh(context: Context, who: Principal, session_id: str, known: str | None) -> Response | None:
    """The status, or None when it is what the caller knows."""
    found = service.get(context.deps, who, session_id)
    position = service.queue_position(context.deps, found)
    tag = views.etag(found, position)
    if known == tag:
        return None
    return JSONResponse(describe(context, found), headers={"ETag": tag, **_NO_CACHE})


async def _wait_for_change(
    context: Context, request: Request, session_id: str, known: str | None, wait_s: float
) -> Response:
    who = await context.look_up(auth.principal, request)
    if known is None:
        now = await context.look_up(_fresh, context, who, session_id, None)
        known = now.headers["etag"] if now is not None else None
    ends = time.monotonic() + wait_s
    with context.hub.watch(SESSION + session_id) as watch:
        while True:
            changed = await context.look_up(_fresh, context, who, session_id, known)
            if changed is not None:
                return changed
            left = ends - time.monotonic()
            if left <= 0 or context.hub.closed:
                break
            await watch.news(min(left, context.hub.recheck_s))
    if request.headers.get("if-none-match") is not None:
        return Response(status_code=304, headers={"ETag": known or "", **_NO_CACHE})
    return await context.look_up(_status, context, request, session_id, None)


def _wait_of(request: Request) -> float:
    raw = request.query_params.get("wait", "0")
    try:
        wait_s = float(raw)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s <= WAIT_MAX_S:
        raise errors.InvalidInput(
            f"wait is a number of seconds from 0 to {WAIT_MAX_S:.0f}", field="wait"
        )
    return wait_s
