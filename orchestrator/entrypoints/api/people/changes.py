"""Endpoints for changing an app after its first version: messages, versions, and their cost."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from orchestrator.entrypoints.api import views
from orchestrator.entrypoints.api.auth import Caller
from orchestrator.entrypoints.api.bounds.inputs import Body, IdempotencyKey, Text, VersionInPath
from orchestrator.entrypoints.api.context import context_of
from orchestrator.entrypoints.api.errors.documented import failing
from orchestrator.entrypoints.api.people import sessions, usage
from orchestrator.services.sessions import changes, requests
from orchestrator.services.sessions.changes import AddedChange
from orchestrator.services.sessions.versions import find_running, list_versions

router = APIRouter(prefix="/api/sessions/{session_id}", tags=["changes"])


class NewMessage(Body):
    """What should be changed."""

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
    ),
)
def say(
    request: Request,
    principal: Caller,
    session_id: str,
    body: NewMessage,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Ask Claude to change the app. The current version stays up until the next one answers. Up to
    five messages wait for their turn."""
    deps = context_of(request).deps
    added = changes.send_message(deps, principal, session_id, body.text, idempotency_key)
    return _added_change(request, added)


@router.get("/messages")
def messages(request: Request, principal: Caller, session_id: str) -> dict[str, Any]:
    """The changes that were asked for since the first prompt, and their results; oldest first."""
    context = context_of(request)
    session = requests.get(context.deps, principal, session_id)
    listed = context.deps.store.changes.list(session.id)
    return {"messages": [views.message(change, session, context.shown) for change in listed]}


@router.get("/versions")
def versions(request: Request, principal: Caller, session_id: str) -> dict[str, Any]:
    """The versions of the app, oldest first. `/bundle?version=N` returns the source of one."""
    context = context_of(request)
    session = requests.get(context.deps, principal, session_id)
    running = find_running(context.deps, session)
    records = list_versions(context.deps, session)
    return {"versions": [views.version(record, running, context.shown) for record in records]}


@router.post(
    "/versions/{version}/restore",
    status_code=202,
    responses=failing(
        "idempotency_conflict",
        "messages_full",
        "session_ending",
        "storage_low",
        "version_not_healthy",
        "version_running",
    ),
)
def restore(
    request: Request,
    principal: Caller,
    session_id: str,
    version: VersionInPath,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Run an earlier version again. Waits for its turn behind earlier messages."""
    deps = context_of(request).deps
    added = changes.restore(deps, principal, session_id, version, idempotency_key)
    return _added_change(request, added)


@router.get("/usage", summary="Cost of a session")
def cost(request: Request, principal: Caller, session_id: str) -> dict[str, Any]:
    """What Claude's work on this app has cost so far."""
    context = context_of(request)
    session = requests.get(context.deps, principal, session_id)
    sums = context.deps.store.usage.session_sums(session.id)
    by_provider = usage.sums_as_json(sums, context.shown)
    return {**usage.add_up(by_provider), "by_provider": by_provider}


def _added_change(request: Request, added: AddedChange) -> dict[str, Any]:
    context = context_of(request)
    return {
        "message": views.message(added.change, added.session, context.shown),
        "session": sessions.describe(context, added.session),
    }
