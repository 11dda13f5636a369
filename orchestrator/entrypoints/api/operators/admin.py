"""Endpoints for operators: all sessions, the pool, keys, the audit log. spawnctl uses them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

import orchestrator
from orchestrator.domain import duration, errors, ids
from orchestrator.domain.ids import KeyId
from orchestrator.domain.people.access import Role
from orchestrator.domain.pool.refill import missing_slots
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import Session, SessionState, Tier
from orchestrator.entrypoints.api import auth, long_reads, paging, views
from orchestrator.entrypoints.api.answers import base
from orchestrator.entrypoints.api.answers import people as people_answers
from orchestrator.entrypoints.api.answers import pool as pool_answers
from orchestrator.entrypoints.api.answers import sessions as session_answers
from orchestrator.entrypoints.api.auth import Operator
from orchestrator.entrypoints.api.bounds.inputs import (
    Body,
    IdPrefix,
    KeyIdInPath,
    KeyName,
    SessionIdInPath,
    States,
    User,
    example,
)
from orchestrator.entrypoints.api.context import Context, context_of
from orchestrator.entrypoints.api.errors.documented import failing
from orchestrator.entrypoints.api.operators import health, hosts, machine_clock
from orchestrator.entrypoints.api.paging import Limit, NumberCursor, SessionCursor
from orchestrator.entrypoints.api.people import sessions as own_sessions
from orchestrator.entrypoints.api.people.sessions import Extension, load_details
from orchestrator.services.people import keys
from orchestrator.services.pool import refill
from orchestrator.services.sessions import requests

router = APIRouter(prefix="/api/admin", tags=["admin"], dependencies=[Depends(auth.operator)])


class NewKey(Body):
    """A key to create: its name, and what it allows."""

    model_config = example(name="laptop", tier="pro", role="user")

    name: KeyName
    tier: Tier = Tier.PRO
    role: Role = Role.USER


@router.get("/sessions", response_model=session_answers.OperatorSessionPage)
async def sessions(
    request: Request,
    principal: Operator,
    state: States = None,
    user: User = None,
    id_prefix: IdPrefix = "",
    cursor: SessionCursor = None,
    limit: Limit = 100,
) -> Response:
    """Everybody's sessions, those that haven't ended first. Newest first within each. Of a long
    prompt only the beginning; `/sessions/{id}` has all of it."""
    context = context_of(request)

    def read() -> session_answers.OperatorSessionPage:
        listed = context.deps.store.sessions.list(
            states=state,
            user_id=user,
            id_prefix=id_prefix,
            after=paging.session_position(cursor),
            limit=limit,
        )
        host_names = _host_names(context)
        sandboxes = {sandbox.id: sandbox for sandbox in context.deps.store.sandboxes.list()}
        rows: list[session_answers.OperatorListedStatus] = []
        for session in listed:
            status = _describe(context, session)
            host = _host_of(sandboxes, host_names, session)
            rows.append({**status, **views.short_prompt(status), "host": host})
        return {"sessions": rows, "next": paging.next_sessions(listed, limit)}

    return await long_reads.answer(request, principal, read)


@router.get("/sessions/{session_id}")
def session(
    request: Request, principal: Operator, session_id: SessionIdInPath
) -> session_answers.OperatorSession:
    """One session, with its sandbox."""
    context = context_of(request)
    session = requests.get(context.deps, principal, session_id)
    sandbox = None
    if session.sandbox_id is not None:
        with contextlib.suppress(errors.NotFound):  # deleted together with its host
            sandbox = context.deps.store.sandboxes.get(session.sandbox_id)
    host_names = _host_names(context)
    return {
        **_describe(context, session),
        "host": host_names.get(sandbox.host_id) if sandbox is not None else None,
        "sandbox": None if sandbox is None else _sandbox(sandbox, host_names, context.shown),
    }


@router.delete("/sessions/{session_id}", status_code=202)
def kill(
    request: Request, principal: Operator, session_id: SessionIdInPath
) -> session_answers.OperatorStatus:
    """End anybody's session. The audit log records it."""
    context = context_of(request)
    return _describe(context, requests.end(context.deps, principal, session_id))


@router.post(
    "/sessions/{session_id}/extend",
    responses=failing("session_ending", "ttl_not_allowed", "ttl_out_of_range"),
)
def extend(
    request: Request, principal: Operator, session_id: SessionIdInPath, body: Extension
) -> session_answers.OperatorStatus:
    """Set a new time to live for anybody's session, within the operator's limits."""
    context = context_of(request)
    session = requests.extend(context.deps, principal, session_id, duration.parse(body.ttl))
    return _describe(context, session)


@router.get("/sessions/{session_id}/logs", response_model=base.Logs)
async def logs(
    request: Request, principal: Operator, session_id: SessionIdInPath, limit: Limit = 200
) -> Response:
    """The last log lines of anybody's app, of 256 KiB at most."""
    return await own_sessions.logs(request, principal, session_id, limit)


@router.get("/pool", summary="Pool")
def pool_view(request: Request) -> pool_answers.Pool:
    """Hosts, slots, warm sandboxes and queues."""
    context = context_of(request)
    host_names = _host_names(context)
    sandboxes = context.deps.store.sandboxes.list()
    return {
        **_pool(context, sandboxes),
        "sandboxes": [_sandbox(sandbox, host_names, context.shown) for sandbox in sandboxes],
    }


@router.get("/overview")
def overview(request: Request) -> pool_answers.Overview:
    """The whole installation at a glance."""
    context = context_of(request)
    counts = context.deps.store.sessions.counts()
    return {
        "version": orchestrator.__version__,
        "started_at": context.shown(context.started_at),
        "sessions": {state: counts.get(state, 0) for state in SessionState},
        "pool": _pool(context, context.deps.store.sandboxes.list()),
        "checks": health.checks(context),
        "warnings": [
            f"{load.host.name}: {problem}"
            for load in context.deps.store.hosts.loads()
            for problem in (load.host.reason, load.host.shortage)
            if problem
        ]
        + [*health.silence_warnings(context.deps), *machine_clock.warnings(context.deps)],
    }


@router.get("/keys")
def list_keys(request: Request) -> people_answers.Keys:
    """All keys, without their secrets: only hashes are stored."""
    context = context_of(request)
    api_keys = context.deps.store.keys.list()
    return {"keys": [views.key(api_key, context.shown) for api_key in api_keys]}


@router.post("/keys", status_code=201, responses=failing("key_exists"))
def create_key(request: Request, body: NewKey) -> people_answers.CreatedKey:
    """Create a key. Only this answer ever shows its secret."""
    context = context_of(request)
    new_key = keys.create(context.deps, body.name, body.tier, body.role)
    return {**views.key(new_key.key, context.shown), "key": new_key.secret}


@router.delete("/keys/{key_id}", status_code=204)
def revoke_key(request: Request, key_id: KeyIdInPath) -> Response:
    """Revoke a key. It stops working at once."""
    deps = context_of(request).deps
    if not ids.is_id(key_id, "key"):
        raise errors.NotFound("there is no such key")
    deps.store.keys.revoke(KeyId(key_id), deps.clock.now())
    return Response(status_code=204)


@router.get("/audit")
def audit(
    request: Request, cursor: NumberCursor = None, limit: Limit = 100
) -> people_answers.AuditPage:
    """Who did what, newest first."""
    context = context_of(request)
    listed = context.deps.store.audit.list(before=paging.audit_position(cursor), limit=limit)
    return {
        "entries": [
            {
                "at": context.shown(entry.at),
                "actor": entry.actor,
                "action": entry.action,
                "subject": entry.subject,
                "detail": entry.detail,
            }
            for entry in listed
        ],
        "next": paging.next_entries(listed, limit),
    }


def _describe(context: Context, session: Session) -> session_answers.OperatorStatus:
    now = context.deps.clock.now()
    details = load_details(context, session)
    return views.operator_status(session, details, now, context.settings, context.shown)


def _pool(context: Context, sandboxes: Sequence[Sandbox]) -> pool_answers.PoolCounts:
    level = refill.measure_level(context.deps)
    loads = context.deps.store.hosts.loads()
    links = hosts.links_by_host(context)
    counts = Counter(sandbox.state for sandbox in sandboxes)
    try:
        queues: dict[str, int] | None = {
            queue.value: depth for queue, depth in context.deps.queue.depth().items()
        }
    except errors.QueueUnavailable:
        queues = None
    return {
        "warm_target": level.target,
        "creating": counts[SandboxState.CREATING],
        "warm": counts[SandboxState.WARM],
        "claimed": counts[SandboxState.CLAIMED],
        "stopping": counts[SandboxState.STOPPING],
        "broken": counts[SandboxState.BROKEN],
        "slots": sum(load.host.slots for load in loads),
        "free_slots": level.totals.free_slots,
        "free_slots_wanted": level.reserve,
        "free_slots_short": missing_slots(level.totals, level.reserve),
        "waiting": level.waiting,
        "queues": queues,
        "hosts": [hosts.view(context, load, links) for load in loads],
    }


def _sandbox(
    sandbox: Sandbox, host_names: dict[str, str], shown: views.Shown
) -> session_answers.Sandbox:
    return {
        "sandbox_id": sandbox.id,
        "state": sandbox.state,
        "session_id": sandbox.session_id,
        "host": host_names.get(sandbox.host_id, sandbox.host_id),
        "port": sandbox.port,
        "slug": sandbox.slug,
        "routed": sandbox.routed,
        "container_id": sandbox.container_id,
        "created_at": shown(sandbox.created_at),
        "reason": sandbox.reason,
    }


def _host_names(context: Context) -> dict[str, str]:
    return {host.id: host.name for host in context.deps.store.hosts.list()}


def _host_of(
    sandboxes: dict[Any, Sandbox], host_names: dict[str, str], session: Session
) -> str | None:
    sandbox = sandboxes.get(session.sandbox_id)
    return None if sandbox is None else host_names.get(sandbox.host_id)
