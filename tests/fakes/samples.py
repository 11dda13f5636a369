"""Sample values for tests: valid by default, changed field by field.

Every call returns a value with new ids and slugs.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.contract.health import Condition
from orchestrator.domain import ids
from orchestrator.domain.people.access import HOUR_S, ApiKey, Role
from orchestrator.domain.pool.host import Host, HostState, Wish
from orchestrator.domain.pool.routes import Route
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.change_turns import Turns
from orchestrator.domain.sessions.session import (
    Failure,
    HistoryEntry,
    Move,
    Phase,
    Report,
    Session,
    SessionState,
    Tier,
    Wanted,
)
from orchestrator.domain.sessions.walks import Walked
from orchestrator.ports import NewSandbox

TTL_S = 24 * HOUR_S
_numbers = itertools.count()
NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
USER = ids.UserId("usr_" + "a" * 26)
IMAGE = "spawnai/sandbox:test"


def later(seconds: float, since: datetime = NOW) -> datetime:
    return since + timedelta(seconds=seconds)


def session(**changes: Any) -> Session:
    """A session that was created at NOW. Its history ends with its state."""
    created = changes.pop("created_at", NOW)
    state = changes.get("state", SessionState.QUEUED)
    history = [HistoryEntry(state=SessionState.QUEUED, at=created)]
    if state is not SessionState.QUEUED:
        history.append(HistoryEntry(state=state, at=created))
    fields: dict[str, Any] = {
        "id": ids.new_session_id(),
        "user_id": USER,
        "tier": Tier.FREE,
        "prompt": "a kanban board",
        "template": None,
        "bundle": None,
        "state": state,
        "wanted": Wanted.RUNNING,
        "slug": None,
        "sandbox_id": None,
        "attempt": 1,
        "version": 0,
        "report": None,
        "failure": None,
        "ttl_s": TTL_S,
        "due_at": created,
        "deadline_at": None,
        "expires_at": later(TTL_S, created),
        "created_at": created,
        "updated_at": created,
        "history": tuple(history),
    }
    return Session(**{**fields, **changes})


def full_session(**changes: Any) -> Session:
    """A session in which no field has its default."""
    history = (
        HistoryEntry(state=SessionState.QUEUED, at=NOW),
        HistoryEntry(state=SessionState.PROVISIONING, at=later(0.25)),
        HistoryEntry(state=SessionState.GENERATING, at=later(1.5)),
    )
    fields: dict[str, Any] = {
        "tier": Tier.PRO,
        "prompt": "une liste de tâches, bitte — 做得好 🚀\nsecond line",
        "template": "todo",
        "bundle": ids.Sha256("b" * 64),
        "state": SessionState.GENERATING,
        "slug": ids.new_slug(),
        "sandbox_id": ids.new_sandbox_id(),
        "attempt": 2,
        "version": 3,
        "report": Report(
            seq=7,
            phase=Phase.FAILED,
            progress=45,
            message="écrit index.html",
            failure=Failure(code="provider_unavailable", message="busy", permanent=False),
        ),
        "failure": Failure(code="app_not_ready", message="line 1\nline 2", counts_as_attempt=False),
        "ttl_s": HOUR_S,
        "due_at": later(2),
        "deadline_at": later(600),
        "expires_at": later(HOUR_S),
        "updated_at": later(1.5),
        "history": history,
        "wish": Wish(region="eu", labels={"gpu": "yes"}),
        "refused_by": (ids.new_host_id(), ids.new_host_id()),
        "move": Move(
            sandbox_id=ids.new_sandbox_id(),
            switched_at=later(1.25),
            report=Report(
                seq=2,
                phase=Phase.READY,
                progress=100,
                message="runs",
                summary="écrit",
                setback=Failure(code="refused", message="non"),
            ),
        ),
        "turns": Turns(requested=4, finished=1, started=2, tries=1),
        "reused": True,
        "crashes": (later(-60), later(-30)),
        "walked": Walked(
            condition=Condition.UNREACHED, at=NOW, problem="no route", failed=3, unreached_at=NOW
        ),
        "history_dropped": 7,
        "revision": 4,
    }
    return session(**{**fields, **changes})


def _new_publish_address() -> str:
    """A loopback address that no other sample has."""
    number = next(_numbers)
    return f"127.0.{number // 250 % 250}.{number % 250 + 1}"


def host(**changes: Any) -> Host:
    """A host that is UP with four free slots."""
    host_id = changes.pop("id", None) or ids.new_host_id()
    fields: dict[str, Any] = {
        "id": host_id,
        "name": f"host-{host_id[-8:]}",
        "docker_url": "unix:///var/run/docker.sock",
        "publish_address": _new_publish_address(),
        "agent_folder": "/run/spawn/agent",
        "state": HostState.UP,
        "slots": 4,
        "cpus": 2,
        "image": IMAGE,
        "seen_at": NOW,
        "created_at": NOW,
        "state_since": NOW - timedelta(minutes=1),
    }
    return Host(**{**fields, **changes})


def new_sandbox(**changes: Any) -> NewSandbox:
    """A new sandbox for the warm pool, as the caller describes it."""
    fields: dict[str, Any] = {
        "id": ids.new_sandbox_id(),
        "session_id": None,
        "slug": ids.new_slug(),
        "image": IMAGE,
    }
    return NewSandbox(**{**fields, **changes})


def sandbox(**changes: Any) -> Sandbox:
    """A warm sandbox on some host."""
    fields: dict[str, Any] = {
        "id": ids.new_sandbox_id(),
        "host_id": ids.new_host_id(),
        "session_id": None,
        "state": SandboxState.WARM,
        "slug": ids.new_slug(),
        "port": 21000,
        "image": IMAGE,
        "container_id": "c" * 64,
        "agent_seen_at": NOW,
        "routed": True,
        "reason": "",
        "created_at": NOW,
        "state_since": NOW,
    }
    return Sandbox(**{**fields, **changes})


def bundle_record(**changes: Any) -> BundleRecord:
    fields: dict[str, Any] = {
        "session_id": ids.new_session_id(),
        "version": 1,
        "sha256": ids.Sha256("d" * 64),
        "size_bytes": 2048,
        "kind": "static",
        "title": "Kanban board",
        "created_at": NOW,
        "delete_after": None,
        "healthy": False,
        "change": 3,
        "provider": "anthropic",
        "summary": "Un tableau",
    }
    return BundleRecord(**{**fields, **changes})


def api_key(**changes: Any) -> ApiKey:
    key_id = changes.pop("id", None) or ids.new_key_id()
    fields: dict[str, Any] = {
        "id": key_id,
        "name": f"key-{key_id[-8:]}",
        "user_id": USER,
        "tier": Tier.PRO,
        "role": Role.USER,
        "key_hash": key_id[-26:].ljust(64, "0"),
        "created_at": NOW,
        "revoked_at": None,
    }
    return ApiKey(**{**fields, **changes})


def routes_of(*sandboxes: Sandbox) -> dict[ids.SandboxId, Route]:
    """A published table, as the store is told of it."""
    return {
        sandbox.id: Route(slug=sandbox.slug, address="127.0.0.1", port=sandbox.port)
        for sandbox in sandboxes
    }
