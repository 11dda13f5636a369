"""Endpoints for changing an app after its first version: messages, versions, and their cost."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from orchestrator.entrypoints.api import long_reads, paging, views
from orchestrator.entrypoints.api.answers import changes as answers
from orchestrator.entrypoints.api.answers import usage as usage_answers
from orchestrator.entrypoints.api.auth import Caller
from orchestrator.entrypoints.api.bounds.inputs import (
    Body,
    IdempotencyKey,
    SessionIdInPath,
    Text,
    VersionInPath,
    example,
)
from orchestrator.entrypoints.api.context import context_of
from orchestrator.entrypoints.api.errors.documented import failing
from orchestrator.entrypoints.api.paging import NumberCursor
from orchestrator.entrypoints.api.people import sessions, usage
from orchestrator.services.sessions import changes, requests
from orchestrator.services.sessions.changes import AddedChange
from orchestrator.services.sessions.versions import find_running, list_versions

router = APIRouter(prefix="/api/sessions/{session_id}", tags=["changes"])


class NewMessage(Body):
    """What should be changed."""

    model_config = example(text="Make it blue.")

    text: Text


@router.post(
    "/messages",
    status_code=202,
    summary="Send a message",
    responses=failing(
        "generation_unavailable",
        "idempotency_conflict",
        "message_empty",
        "message_not_text",
        "message_too_large",
        "messages_full",
        "session_ending",
        "storage_low",
        "storage_quota",
        "too_many_changes",
    ),
)
def say(
    request: Request,
    principal: Caller,
    session_id: SessionIdInPath,
    body: NewMessage,
    idempotency_key: IdempotencyKey = None,
) -> answers.AddedChange:
    """Ask Claude to change the app. The current version stays up until the next one answers. Up to
    five messages wait for their turn."""
    deps = context_of(request).deps
    added = changes.send_message(deps, principal, session_id, body.text, idempotency_key)
    return _added_change(request, added)


@router.get("/messages", response_model=answers.MessagePage)
async def messages(
    request: Request,
    principal: Caller,
    session_id: SessionIdInPath,
    cursor: NumberCursor = None,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 100,
) -> Response:
    """The latest changes that were asked for, of 256 KiB of text at most, and their results; oldest
    first. `next` is the cursor of those before them."""
    context = context_of(request)

    def read() -> answers.MessagePage:
        session = requests.get(context.deps, principal, session_id)
        before = paging.change_position(cursor)
        latest = context.deps.store.changes.list(session.id, before=before, limit=limit)
        count = long_reads.latest_within([len(change.text.encode()) for change in latest])
        page = latest[len(latest) - count :]
        return {
            "messages": [views.message(change, session, context.shown) for change in page],
            "next": paging.next_changes(page),
        }

    return await long_reads.answer(request, principal, read)


@router.get("/versions", response_model=answers.Versions)
async def versions(request: Request, principal: Caller, session_id: SessionIdInPath) -> Response:
    """The versions of the app, oldest first. `/bundle?version=N` returns the source of one."""
    context = context_of(request)

    def read() -> answers.Versions:
        session = requests.get(context.deps, principal, session_id)
        running = None if session.ended else find_running(context.deps, session)
        records = list_versions(context.deps, session)
        return {"versions": [views.version(record, running, context.shown) for record in records]}

    return await long_reads.answer(request, principal, read)


@router.post(
    "/versions/{version}/restore",
    status_code=202,
    responses=failing(
        "idempotency_conflict",
        "messages_full",
        "session_ending",
        "storage_low",
        "too_many_changes",
        "version_not_healthy",
        "version_running",
    ),
)
def restore(
    request: Request,
    principal: Caller,
    session_id: SessionIdInPath,
    version: VersionInPath,
    idempotency_key: IdempotencyKey = None,
) -> answers.AddedChange:
    """Run an earlier version again. Waits for its turn behind earlier messages."""
    deps = context_of(request).deps
    added = changes.restore(deps, principal, session_id, version, idempotency_key)
    return _added_change(request, added)


@router.get("/usage", summary="Cost of a session", response_model=usage_answers.SessionUsage)
async def cost(request: Request, principal: Caller, session_id: SessionIdInPath) -> Response:
    """What Claude's work on this app has cost so far."""
    context = context_of(request)

    def read() -> usage_answers.SessionUsage:
        session = requests.get(context.deps, principal, session_id)
        sums = context.deps.store.usage.session_sums(session.id)
        by_provider = usage.sums_as_json(sums, context.shown)
        return {**usage.add_up(by_provider), "by_provider": by_provider}

    return await long_reads.answer(request, principal, read)


def _added_change(request: Request, added: AddedChange) -> answers.AddedChange:
    context = context_of(request)
    return {
        "message": views.message(added.change, added.session, context.shown),
        "session": sessions.describe(context, added.session),
    }
