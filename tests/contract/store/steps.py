"""Steps that several store suites share. They use the port only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import Session, SessionState
from orchestrator.ports import Idempotency, Store
from tests.fakes import samples
from tests.fakes.samples import NOW


def add(
    store: Store,
    session: Session,
    idempotency: Idempotency | None = None,
    *,
    max_active: int = 10_000,
) -> Session:
    return store.sessions.add(session, idempotency, max_active=max_active)


def add_session(store: Store, **changes: Any) -> Session:
    return add(store, samples.session(**changes))


def warm_up(store: Store, now: datetime = NOW, **changes: Any) -> Sandbox:
    """Place a sandbox for the warm pool and make it WARM: its agent visits, its route is live."""
    placed = store.sandboxes.place(samples.new_sandbox(**changes), now)
    store.sandboxes.agent_seen(placed.id, now)
    (warm,) = store.sandboxes.mark_routes(samples.routes_of(placed), [], now)
    assert warm.state is SandboxState.WARM
    return warm


def walk(store: Store, sandbox: Sandbox, *states: SandboxState) -> Sandbox:
    """Take a sandbox through these states."""
    for state in states:
        changed = sandbox.transition(state, NOW, "a test said so")
        sandbox = store.sandboxes.save(changed, sandbox.state)
    return sandbox


def retire(store: Store, sandbox: Sandbox) -> Sandbox:
    """Take a sandbox to GONE: its slot and its port are free again."""
    stopping = walk(store, sandbox, SandboxState.STOPPING)
    store.sandboxes.mark_routes({}, [stopping.id], NOW)
    return walk(store, stopping, SandboxState.GONE)


def provisioning(session: Session, **changes: Any) -> Session:
    """The session as `converge` passes it to `claim` or `place_for`."""
    return replace(session.transition(SessionState.PROVISIONING, NOW), **changes)


def run_together(jobs: Sequence[Callable[[], None]]) -> None:
    """Run each job in its own thread, and wait for all of them."""
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread did not end in 30 s"
