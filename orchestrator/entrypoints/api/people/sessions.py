"""Endpoints for users: sessions, their status, and the templates."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.responses import Response

from orchestrator.domain import duration, errors
from orchestrator.domain.people.access import LIMITS, Principal
from orchestrator.domain.pool.host import Wish
from orchestrator.domain.sessions.session import Session
from orchestrator.entrypoints.api import auth, long_reads, paging, views
from orchestrator.entrypoints.api.auth import Caller
from orchestrator.entrypoints.api.bounds.inputs import (
    Body,
    IdempotencyKey,
    Labels,
    Name,
    States,
    Word,
)
from orchestrator.entrypoints.api.context import Context, context_of
from orchestrator.entrypoints.api.paging import Cursor
from orchestrator.ports import topics
from orchestrator.services.sessions import requests

router = APIRouter(prefix="/api", tags=["sessions"])

STATUS_PATH = "/api/status/{session_id}"
WAIT_MAX_S = 60.0
_NO_CACHE = {"Cache-Control": "private, no-cache"}


class NewSession(Body):
    """What to build, and for how long."""

    prompt: str = ""
    template: Name | None = None
    ttl: str | int | None = None
    fresh: bool = Field(
        default=False,
        description="Ask Claude even if an equal prompt was answered within the last hour.",
    )
    region: Word = Field(default="", description="Region of the host to run on. Empty: any.")
    labels: Labels = Field(default={}, description="Labels that the host must have, all of them.")


class Extension(Body):
    """A new time to live, counted from now."""

    ttl: str | int


@router.post("/sessions", status_code=202)
def create(
    request: Request,
    principal: Caller,
    body: NewSession,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Ask for an app. Answers at once. Follow the progress at `/api/status/{id}`."""
    context = context_of(request)
    app_request = requests.Request(
        prompt=body.prompt,
        template=body.template or None,
        ttl_s=None if body.ttl is None else duration.parse(body.ttl),
        idempotency_key=idempotency_key,
        wish=Wish(region=body.region, labels=body.labels),
        fresh=body.fresh,
    )
    session = requests.create(context.deps, principal, app_request)
    if session.template is None:
        context.api_metrics.generations.labels("yes" if session.reused else "no").inc()
    return _answer(context, session, status_code=202, location=f"/api/status/{session.id}")


@router.get("/sessions", summary="List own sessions", response_model=dict[str, Any])
async def list_own(
    request: Request,
    principal: Caller,
    state: States = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most.")] = 50,
) -> Response:
    """The caller's own sessions, those that haven't ended first. Newest first within each. Of a
    long prompt only the beginning; the status of the session has all of it."""
    context = context_of(request)

    def read() -> dict[str, Any]:
        own = context.deps.store.sessions.list(
            user_id=principal.user_id,
            states=state,
            after=paging.session_position(cursor),
            limit=limit,
        )
        return {
            "sessions": [views.listed(describe(context, session)) for session in own],
            "next": paging.next_sessions(own, limit),
        }

    return await long_reads.answer(request, principal, read)


@router.get(
    "/status/{session_id}",
    summary="Status",
    openapi_extra={
        "parameters": [
            {
                "name": "wait",
                "in": "query",
                "required": False,
                "schema": {"type": "number", "minimum": 0, "maximum": WAIT_MAX_S},
                "description": "Seconds to wait for a change.",
            }
        ]
    },
)
async def status_documented(request: Request, session_id: str) -> Response:
    """The state of a session. With `If-None-Match`, answers 304 if nothing has changed. With
    `wait`, answers as soon as something changes."""
    del session_id  # only for the documentation; `status` reads it from the path
    return await status(request)


async def status(request: Request) -> Response:
    """The same endpoint without FastAPI. public_app's first route calls it directly."""
    context = context_of(request)
    session_id = request.path_params["session_id"]
    wait_s = _wait_of(request)
    etag = request.headers.get("if-none-match")
    if wait_s <= 0:
        return await context.look_up(_status, context, request, session_id, etag)
    return await _wait_for_change(context, request, session_id, etag, wait_s)


@router.post("/sessions/{session_id}/extend")
def extend(request: Request, principal: Caller, session_id: str, body: Extension) -> Response:
    """Set a new time to live for an app, counted from now."""
    context = context_of(request)
    session = requests.extend(context.deps, principal, session_id, duration.parse(body.ttl))
    return _answer(context, session)


@router.delete("/sessions/{session_id}", status_code=202)
def end(request: Request, principal: Caller, session_id: str) -> Response:
    """End an app now."""
    context = context_of(request)
    session = requests.end(context.deps, principal, session_id)
    return _answer(context, session, status_code=202)


@router.get("/sessions/{session_id}/logs", response_model=dict[str, Any])
async def logs(
    request: Request,
    principal: Caller,
    session_id: str,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Response:
    """The last lines that the app printed, of 256 KiB at most."""
    context = context_of(request)

    def read() -> dict[str, Any]:
        session = requests.get(context.deps, principal, session_id)
        lines = context.deps.store.logs.tail(session.id, limit)
        count = long_reads.latest_within([len(line.text.encode()) for line in lines])
        return {
            "lines": [
                {"at": context.shown(line.at), "text": line.text}
                for line in lines[len(lines) - count :]
            ]
        }

    return await long_reads.answer(request, principal, read)


@router.get("/templates", tags=["templates"])
def templates(request: Request) -> dict[str, Any]:
    """Ready-made apps, which start at once, without Claude."""
    return views.templates(context_of(request).deps.catalog.list())


def describe(context: Context, session: Session) -> dict[str, Any]:
    """A session as its owner sees it."""
    return _describe(context, session, load_details(context, session))


def load_details(context: Context, session: Session) -> views.SessionDetails:
    """What a status shows of a session besides its own row."""
    deps = context.deps
    number = session.turns.started
    return views.SessionDetails(
        position=requests.queue_position(deps, session),
        change=deps.store.changes.get(session.id, number) if session.is_changing else None,
        offer=requests.suggest_template(deps, session),
    )


def _describe(context: Context, session: Session, details: views.SessionDetails) -> dict[str, Any]:
    now = context.deps.clock.now()
    return views.status(session, details, now, context.settings, context.shown)


def _answer(
    context: Context, session: Session, *, status_code: int = 200, location: str | None = None
) -> Response:
    details = load_details(context, session)
    headers = {"ETag": views.etag(session, details.position), **_NO_CACHE}
    if location is not None:
        headers["Location"] = location
    body = _describe(context, session, details)
    return JSONResponse(body, status_code=status_code, headers=headers)


def _status(context: Context, request: Request, session_id: str, etag: str | None) -> Response:
    principal = auth.principal(request)
    changed = _changed_status(context, principal, session_id, etag)
    return changed or Response(status_code=304, headers=_NO_CACHE)


def _changed_status(
    context: Context, principal: Principal, session_id: str, etag: str | None
) -> Response | None:
    """The status, or None if it still has the tag `etag`."""
    session = requests.get(context.deps, principal, session_id)
    position = requests.queue_position(context.deps, session)
    current_etag = views.etag(session, position)
    if etag == current_etag:
        return None
    return JSONResponse(describe(context, session), headers={"ETag": current_etag, **_NO_CACHE})


async def _wait_for_change(
    context: Context, request: Request, session_id: str, etag: str | None, wait_s: float
) -> Response:
    """The status as soon as it no longer has the tag `etag`, or when `wait_s` have passed."""
    principal = await context.look_up(auth.principal, request)
    if etag is None:
        first = await context.look_up(_changed_status, context, principal, session_id, None)
        etag = first.headers["etag"] if first is not None else None
    deadline_s = time.monotonic() + wait_s
    own_poll = context.polls.hold(principal.user_id, LIMITS[principal.tier].polls_max)
    with own_poll, context.hub.watch(topics.topic_of(topics.SESSION, session_id)) as watch:
        while True:
            changed = await context.look_up(_changed_status, context, principal, session_id, etag)
            if changed is not None:
                return changed
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0 or context.hub.closed or await request.is_disconnected():
                break
            await watch.wait(min(remaining_s, context.hub.recheck_s))
    if request.headers.get("if-none-match") is not None:
        return Response(status_code=304, headers={"ETag": etag or "", **_NO_CACHE})
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
