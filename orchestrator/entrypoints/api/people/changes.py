"""Endpoints for what users ask of apps that are there: messages, versions, and what they cost."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, ConfigDict

from orchestrator.entrypoints.api import views
from orchestrator.entrypoints.api.auth import Caller
from orchestrator.entrypoints.api.context import context_of
from orchestrator.entrypoints.api.people import sessions, usage
from orchestrator.services.sessions import changes as service
from orchestrator.services.sessions import requests as session_service
from orchestrator.services.sessions import versions as version_service

router = APIRouter(prefix="/api/sessions/{session_id}", tags=["changes"])

IdempotencyKey = Annotated[str | None, Header(max_length=sessions.IDEMPOTENCY_KEY_MAX)]


class NewMessage(BaseModel):
    """What should change."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=False)

    text: str = ""


@router.post("/messages", status_code=202)
def say(
    request: Request,
    who: Caller,
    session_id: str,
    body: NewMessage,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Ask Claude for a change of the app. The version before goes on being served until the next
    one answers. Up to five wait for their turn."""
    deps = context_of(request).deps
    asked = service.say(deps, who, session_id, body.text, idempotency_key)
    return _asked(request, asked)


@router.get("/messages")
def messages(request: Request, who: Caller, session_id: str) -> dict[str, Any]:
    """What was asked for since the first prompt, and what became of it; oldest first."""
    deps = context_of(request).deps
    found = session_service.get(deps, who, session_id)
    return {"messages": [views.message(one, found) for one in deps.store.changes.list(found.id)]}


@router.get("/versions")
def versions(request: Request, who: Caller, session_id: str) -> dict[str, Any]:
    """The versions of the app, oldest first. `/bundle?version=N` has the source of each."""
    deps = context_of(request).deps
    found = session_service.get(deps, who, session_id)
    running = version_service.running(deps, found)
    known = version_service.of_session(deps, found)
    return {"versions": [views.version(one, running) for one in known]}


@router.post("/versions/{version}/restore", status_code=202)
def restore(
    request: Request,
    who: Caller,
    session_id: str,
    version: int,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Ask for an earlier version to run again, after what waits already."""
    deps = context_of(request).deps
    asked = service.restore(deps, who, session_id, version, idempotency_key)
    return _asked(request, asked)


@router.get("/usage")
def cost(request: Request, who: Caller, session_id: str) -> dict[str, Any]:
    """What Claude's work on this app has cost so far."""
    deps = context_of(request).deps
    found = session_service.get(deps, who, session_id)
    by_provider = usage.rows(deps.store.usage.of_session(found.id))
    return {**usage.total(by_provider), "by_provider": by_provider}


def _asked(request: Request, asked: service.Asked) -> dict[str, Any]:
    return {
        "message": views.message(asked.change, asked.session),
        "session": sessions.describe(context_of(request), asked.session),
    }
