"""Publishes the route table to the proxy. Called by the publish loop; each function is one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator import ports
from orchestrator.domain.pool.routes import RouteTable, StoredRoutes, build_table
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions import planner
from orchestrator.domain.sessions.session import Session
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.pool import claims
from orchestrator.slim import structlog

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Published:
    """What one publication changed."""

    digest: str  # of the new table
    routes: int  # in the new table
    changed: int  # sandboxes whose route became live or was withdrawn


def publish(deps: Deps, proxy: ports.Proxy, *, afresh: bool = False) -> Published:
    """Publish the store's routes, record which are live and which are withdrawn, wake who waits.

    A sandbox that stops once they are read is still in the table, and is not recorded as withdrawn.
    `afresh` is for the proxy. Raises errors.ProxyRejected, errors.ProxyUnavailable: then nothing is
    recorded.
    """
    stored = deps.store.sandboxes.routes()
    table = build_table(stored.routes.values())
    proxy.publish(table, afresh=afresh)
    if table.ambiguous:
        _suspect_hosts(deps, stored, table)
    changed = _record(deps, stored, table)
    _wake_waiting(deps, changed)
    return Published(digest=table.digest, routes=len(table.routes), changed=len(changed))


def _suspect_hosts(deps: Deps, stored: StoredRoutes, table: RouteTable) -> None:
    """Report routes that can't be published, and take their hosts out of placement."""
    for sandbox_id, route in stored.routes.items():
        if route not in table.ambiguous:
            continue
        reason = f"another app has the route {route.slug} or {route.address}:{route.port}, too"
        log.error("route_ambiguous", sandbox=sandbox_id, slug=route.slug, reason=reason)
        claims.mark_suspect(deps, deps.store.sandboxes.get(sandbox_id).host_id, reason)


def _record(deps: Deps, stored: StoredRoutes, table: RouteTable) -> Sequence[Sandbox]:
    """Record what of these routes has changed. Returns the sandboxes."""
    unconfirmed = {sandbox_id: stored.routes[sandbox_id] for sandbox_id in stored.unconfirmed}
    live = {each: route for each, route in unconfirmed.items() if route not in table.ambiguous}
    if not live and not stored.withdrawn:
        return ()
    return deps.store.sandboxes.mark_routes(live, stored.withdrawn, deps.clock.now())


def _wake_waiting(deps: Deps, sandboxes: Sequence[Sandbox]) -> None:
    is_pool_concerned = False
    for sandbox in sandboxes:
        if sandbox.session_id is None or sandbox.state is SandboxState.STOPPING:
            is_pool_concerned = True  # it can be claimed, or removed
        elif (session := _find_waiting(deps, sandbox)) is not None:
            nudge(deps, session)
    if is_pool_concerned:
        deps.events.pool_changed()


def _find_waiting(deps: Deps, sandbox: Sandbox) -> Session | None:
    """The session of this sandbox, if it may be waiting for its route."""
    if sandbox.session_id is None or sandbox.agent_seen_at is None:
        return None  # as nearly always: the container is about to start, and no app is up yet
    session = deps.store.sessions.get(sandbox.session_id)
    return session if planner.awaits_route(session) else None
