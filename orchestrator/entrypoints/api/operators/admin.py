"""Endpoints for operators: everybody's sessions, the pool, keys, audit. What spawnctl talks to."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

import orchestrator
from orchestrator.domain import duration, errors
from orchestrator.domain.ids import KeyId
from orchestrator.domain.people.access import Role
from orchestrator.domain.pool.refill import short_of_slots
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import Session, SessionState, Tier
from orchestrator.entrypoints.api import auth, views
from orchestrator.entrypoints.api.auth import Operator
from orchestrator.entrypoints.api.context import Context, context_of
from orchestrator.entrypoints.api.operators import health, hosts
from orchestrator.entrypoints.api.people.sessions import Extension, beside
from orchestrator.entrypoints.api.people.sessions import logs as own_logs
from orchestrator.services.people import keys
from orchestrator.services.pool import refill
from orchestrator.services.sessions import requests as service

router = APIRouter(prefix="/api/admin", tags=["admin"], dependencies=[Depends(auth.operator)])

Limit = Annotated[int, Query(ge=1, le=1000)]


class NewKey(BaseModel):
    """Whose key, and what it may do."""

    model_config = ConfigDict(extra="forbid")

    name: str
    tier: Tier = Tier.PRO
    role: Role = Role.USER


@router.get("/sessions")
def sessions(
    request: Request, state: SessionState | None = None, limit: Limit = 100
) -> dict[str, Any]:
    """Everybody's sessions, newest first."""
    context = context_of(request)
    states = None if state is None else [state]
    found = context.deps.store.sessions.list(states=states, limit=limit)
    names = _host_names(context)
    boxes = {box.id: box for box in context.deps.store.sandboxes.list()}
    return {
        "sessions": [
            {**_describe(context, one), "host": _host_of(boxes, names, one)} for one in found
        ]
    }


@router.get("/sessions/{session_id}")
def session(request: Request, who: Operator, session_id: str) -> dict[str, Any]:
    """One session, with its sandbox."""
    context = context_of(request)
    found = service.get(context.deps, who, session_id)
    box = None
    if found.sandbox_id is not None:
        with contextlib.suppress(errors.NotFound):  # it went with its host's record
            box = context.deps.store.sandboxes.get(found.sandbox_id)
    names = _host_names(context)
    return {
        **_describe(context, found),
        "host": names.get(box.host_id) if box is not None else None,
        "sandbox": None if box is None else _sandbox(box, names),
    }


@router.delete("/sessions/{session_id}", status_code=202)
def kill(request: Request, who: Operator, session_id: str) -> dict[str, Any]:
    """End anybody's session; audited."""
    context = context_of(request)
    return _describe(context, service.end(context.deps, who, session_id))


@router.post("/sessions/{session_id}/extend")
def extend(request: Request, who: Operator, session_id: str, body: Extension) -> dict[str, Any]:
    """Let anybody's session live for longer, within the operator's limits."""
    context = context_of(request)
    found = service.extend(context.deps, who, session_id, duration.parse(body.ttl))
    return _describe(context, found)


@router.get("/sessions/{session_id}/logs")
def logs(request: Request, who: Operator, session_id: str, limit: Limit = 200) -> dict[str, Any]:
    """Anybody's log lines."""
    return own_logs(request, who, session_id, limit)


@router.get("/pool")
def pool_view(request: Request) -> dict[str, Any]:
    """Hosts, slots, warm sandboxes and queues."""
    context = context_of(request)
    names = _host_names(context)
    boxes = context.deps.store.sandboxes.list()
    return {**_pool(context, boxes), "sandboxes": [_sandbox(box, names) for box in boxes]}


@router.get("/overview")
def overview(request: Request) -> dict[str, Any]:
    """The whole installation at a glance."""
    context = context_of(request)
    counts = context.deps.store.sessions.counts()
    return {
        "version": orchestrator.__version__,
        "started_at": context.started_at.isoformat(),
        "sessions": {state.value: counts.get(state, 0) for state in SessionState},
        "pool": _pool(context, context.deps.store.sandboxes.list()),
        "checks": health.checks(context),
        "warnings": [
            f"{load.host.name}: {load.host.reason}"
            for load in context.deps.store.hosts.loads()
            if load.host.reason
        ],
    }


@router.get("/keys")
def list_keys(request: Request) -> dict[str, Any]:
    """All keys; never the secrets, which nobody has."""
    return {"keys": [views.key(one) for one in context_of(request).deps.store.keys.list()]}


@router.post("/keys", status_code=201)
def create_key(request: Request, body: NewKey) -> dict[str, Any]:
    """A new key. The answer is the only place where it is ever shown."""
    made = keys.create(context_of(request).deps, body.name, body.tier, body.role)
    return {**views.key(made.key), "key": made.secret}


@router.delete("/keys/{key_id}", status_code=204)
def revoke_key(request: Request, key_id: str) -> Response:
    """The key stops working at once."""
    deps = context_of(request).deps
    deps.store.keys.revoke(KeyId(key_id), deps.clock.now())
    return Response(status_code=204)


@router.get("/audit")
def audit(request: Request, limit: Limit = 100) -> dict[str, Any]:
    """Who did what, newest first."""
    return {
        "entries": [
            {
                "at": entry.at.isoformat(),
                "actor": entry.actor,
                "action": entry.action,
                "subject": entry.subject,
                "detail": entry.detail,
            }
            for entry in context_of(request).deps.store.audit.list(limit)
        ]
    }


def _describe(context: Context, found: Session) -> dict[str, Any]:
    now = context.deps.clock.now()
    return views.operator_status(found, beside(context, found), now, context.settings)


def _pool(context: Context, boxes: Sequence[Sandbox]) -> dict[str, Any]:
    level = refill.level(context.deps)
    loads = context.deps.store.hosts.loads()
    links = {one.host: one for one in context.deps.board.read()}
    try:
        queues: dict[str, int] | None = {
            queue.value: depth for queue, depth in context.deps.queue.depth().items()
        }
    except errors.QueueUnavailable:
        queues = None
    return {
        "warm_target": level.target,
        **{
            state.value: sum(box.state is state for box in boxes)
            for state in SandboxState
            if state is not SandboxState.GONE
        },
        "slots": sum(load.host.slots for load in loads),
        "free_slots": level.totals.free_slots,
        "free_slots_wanted": level.reserve,
        "free_slots_short": short_of_slots(level.totals, level.reserve),
        "waiting": level.waiting,
        "queues": queues,
        "hosts": [hosts.view(load, links) for load in loads],
    }


def _sandbox(box: Sandbox, hosts: dict[str, str]) -> dict[str, Any]:
    return {
        "sandbox_id": box.id,
        "state": box.state,
        "session_id": box.session_id,
        "host": hosts.get(box.host_id, box.host_id),
        "port": box.port,
        "slug": box.slug,
        "routed": box.routed,
        "container_id": box.container_id,
        "created_at": box.created_at.isoformat(),
        "reason": box.reason,
    }


def _host_names(context: Context) -> dict[str, str]:
    return {host.id: host.name for host in context.deps.store.hosts.list()}


def _host_of(boxes: dict[Any, Sandbox], hosts: dict[str, str], found: Session) -> str | None:
    box = boxes.get(found.sandbox_id)
    return None if box is None else hosts.get(box.host_id)
