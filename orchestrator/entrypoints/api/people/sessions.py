"""Endpoints for users: sessions, their status, and the templates."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field
from starlette.responses import Response

from orchestrator.domain import duration, errors
from orchestrator.domain.people.access import LIMITS, Principal
from orchestrator.domain.pool.host import Wish
from orchestrator.domain.sessions.session import AT_REST, Session
from orchestrator.entrypoints.api import auth, long_reads, paging, views
from orchestrator.entrypoints.api.answers import base
from orchestrator.entrypoints.api.answers import sessions as answers
from orchestrator.entrypoints.api.auth import Caller
from orchestrator.entrypoints.api.bounds.inputs import (
    NEW_APP,
    Body,
    Flag,
    IdempotencyKey,
    Labels,
    Prompt,
    SessionIdInPath,
    States,
    TemplateName,
    Ttl,
    Word,
    example,
)
from orchestrator.entrypoints.api.context import Context, context_of
from orchestrator.entrypoints.api.errors.documented import failing
from orchestrator.entrypoints.api.paging import SessionCursor
from orchestrator.entrypoints.api.people.etags import KnownTags, known_tags
from orchestrator.ports import topics
from orchestrator.services.sessions import requests

router = APIRouter(prefix="/api", tags=["sessions"])

STATUS_PATH = "/api/status/{session_id}"
WAIT_MAX_S = 60.0
_NO_CACHE = {"Cache-Control": "private, no-cache"}
_TAGGED = {"ETag": {"description": "The tag of this status.", "schema": {"type": "string"}}}


class NewSession(Body):
    """What to build, and for how long."""

    model_config = ConfigDict(json_schema_extra=NEW_APP)

    prompt: Prompt = ""
    template: TemplateName | None = None
    ttl: Ttl | None = None
    fresh: Flag = Field(
        default=False,
        description="Ask Claude even if an equal prompt was answered within the last hour.",
    )
    region: Word = Field(default="", description="Region of the host to run on. Empty: any.")
    labels: Labels = Field(default={}, description="Labels that the host must have, all of them.")


class Extension(Body):
    """A new time to live, counted from now."""

    model_config = example(ttl="2h")

    ttl: Ttl


@router.post(
    "/sessions",
    status_code=202,
    response_model=answers.Status,
    responses=failing(
        "generation_unavailable",
        "idempotency_conflict",
        "placement_unknown",
        "prompt_empty",
        "prompt_not_text",
        "prompt_too_large",
        "queue_full",
        "storage_low",
        "storage_quota",
        "template_unknown",
        "too_many_sessions",
        "too_many_starts",
        "ttl_not_allowed",
        "ttl_out_of_range",
    ),
)
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
        template=body.template,
        ttl_s=None if body.ttl is None else duration.parse(body.ttl),
        idempotency_key=idempotency_key,
        wish=Wish(region=body.region, labels=body.labels),
        fresh=body.fresh,
    )
    session = requests.create(context.deps, principal, app_request)
    if session.template is None:
        context.api_metrics.generations.labels("yes" if session.reused else "no").inc()
    return _answer(context, session, status_code=202, location=f"/api/status/{session.id}")


@router.get("/sessions", summary="List own sessions", response_model=answers.SessionPage)
async def list_own(
    request: Request,
    principal: Caller,
    state: States = None,
    cursor: SessionCursor = None,
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most.")] = 50,
) -> Response:
    """The caller's own sessions, those that haven't ended first. Newest first within each. Of a
    long prompt only the beginning; the status of the session has all of it."""
    context = context_of(request)

    def read() -> answers.SessionPage:
        own = context.deps.store.sessions.list(
            user_id=principal.user_id,
            states=state,
            after=paging.session_position(cursor),
            limit=limit,
        )
        statuses = [describe(context, session) for session in own]
        return {
            "sessions": [{**status, **views.short_prompt(status)} for status in statuses],
            "next": paging.next_sessions(own, limit),
        }

    return await long_reads.answer(request, principal, read)


@router.get(
    "/status/{session_id}",
    summary="Status",
    response_model=answers.Status,
    responses={
        200: {"headers": _TAGGED},
        304: {"headers": _TAGGED, "description": "Nothing has changed since that answer."},
        **failing("too_many_polls"),
    },
    openapi_extra={
        "parameters": [
            {
                "name": "wait",
                "in": "query",
                "required": False,
                "schema": {"type": "number", "minimum": 0, "maximum": WAIT_MAX_S},
                "description": "Seconds to wait for a change.",
            },
            {
                "name": "If-None-Match",
                "in": "header",
                "required": False,
                "schema": {"type": "string"},
                "description": "The `ETag` of the last answer.",
            },
        ]
    },
)
async def status_documented(request: Request, session_id: SessionIdInPath) -> Response:
    """The state of a session. With the `ETag` of the last answer as `If-None-Match`, answers 304 if
    nothing has changed since. With `wait`, answers as soon as something has changed since that
    answer; without a tag at the next change, and at once if the session is at rest: `ready`,
    `failed` or `destroyed`. When the time is over, it answers as it does without `wait`."""
    del session_id  # only for the documentation; `status` reads it from the path
    return await status(request)


async def status(request: Request) -> Response:
    """The same endpoint without FastAPI. public_app's first route calls it directly."""
    context = context_of(request)
    session_id = request.path_params["session_id"]
    wait_s = _wait_of(request)
    known = known_tags(request.headers)
    if wait_s <= 0:
        return await context.look_up(_status, context, request, session_id, known)
    return await _wait_for_change(context, request, session_id, known, wait_s)


@router.post(
    "/sessions/{session_id}/extend",
    response_model=answers.Status,
    responses=failing("session_ending", "ttl_not_allowed", "ttl_out_of_range"),
)
def extend(
    request: Request, principal: Caller, session_id: SessionIdInPath, body: Extension
) -> Response:
    """Set a new time to live for an app, counted from now."""
    context = context_of(request)
    session = requests.extend(context.deps, principal, session_id, duration.parse(body.ttl))
    return _answer(context, session)


@router.delete("/sessions/{session_id}", status_code=202, response_model=answers.Status)
def end(request: Request, principal: Caller, session_id: SessionIdInPath) -> Response:
    """End an app now."""
    context = context_of(request)
    session = requests.end(context.deps, principal, session_id)
    return _answer(context, session, status_code=202)


@router.get("/sessions/{session_id}/logs", response_model=base.Logs)
async def logs(
    request: Request,
    principal: Caller,
    session_id: SessionIdInPath,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Response:
    """The last lines that the app printed, of 256 KiB at most."""
    context = context_of(request)

    def read() -> base.Logs:
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
def templates(request: Request) -> answers.Templates:
    """Ready-made apps, which start at once, without Claude."""
    return views.templates(context_of(request).deps.catalog.list())


def describe(context: Context, session: Session) -> answers.Status:
    """A session as its owner sees it."""
    return _describe(context, session, load_details(context, session))


def load_details(context: Context, session: Session) -> views.SessionDetails:
    """What a status shows of a session besides its own row."""
    return _details(context, session, requests.queue_position(context.deps, session))


def _details(context: Context, session: Session, position: int | None) -> views.SessionDetails:
    deps = context.deps
    number = session.turns.started
    return views.SessionDetails(
        position=position,
        change=deps.store.changes.get(session.id, number) if session.is_changing else None,
        offer=requests.suggest_template(deps, session),
    )


def _describe(context: Context, session: Session, details: views.SessionDetails) -> answers.Status:
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


def _status(context: Context, request: Request, session_id: str, known: KnownTags) -> Response:
    principal = auth.principal(request)
    session, position = _look(context, principal, session_id)
    return _status_unless_known(context, session, position, known)


async def _wait_for_change(
    context: Context, request: Request, session_id: str, known: KnownTags, wait_s: float
) -> Response:
    """The status as soon as its tag isn't among those known, or when `wait_s` have passed.

    Who sends no tag is taken to know what is now, unless the session is at rest: then there may be
    nothing to wait for, and they may not have heard of it.
    """
    principal = await context.look_up(auth.principal, request)
    deadline_s = time.monotonic() + wait_s
    awaited = known
    own_poll = context.polls.hold(principal.user_id, LIMITS[principal.tier].polls_max)
    with own_poll, context.hub.watch(topics.topic_of(topics.SESSION, session_id)) as watch:
        while True:
            session, position = await context.look_up(_look, context, principal, session_id)
            etag = views.etag(session, position)
            if not awaited and session.state not in AT_REST:
                awaited = KnownTags(tags=frozenset({etag}))
            remaining_s = deadline_s - time.monotonic()
            is_over = remaining_s <= 0 or context.hub.closed
            if etag not in awaited or is_over:
                break
            is_awake = await watch.wait(min(remaining_s, context.hub.recheck_s))
            if not is_awake and await request.is_disconnected():
                break
    return await context.look_up(_status_unless_known, context, session, position, known)


def _look(context: Context, principal: Principal, session_id: str) -> tuple[Session, int | None]:
    """The session and its position in the queue, which make up the tag of its status."""
    session = requests.get(context.deps, principal, session_id)
    return session, requests.queue_position(context.deps, session)


def _status_unless_known(
    context: Context, session: Session, position: int | None, known: KnownTags
) -> Response:
    etag = views.etag(session, position)
    headers = {"ETag": etag, **_NO_CACHE}
    if etag in known:
        return Response(status_code=304, headers=headers)
    details = _details(context, session, position)
    return JSONResponse(_describe(context, session, details), headers=headers)


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
