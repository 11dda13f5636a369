"""Publishes the route table to the proxy. Called by the publish loop; each function is one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator import ports
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.routes import Route, build_table
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions import planner
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.pool import claims
from orchestrator.slim import structlog

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Published:
    """What one publication changed."""

    routes: int  # in the new table
    changed: int  # sandboxes whose route became live or was withdrawn


def publish(deps: Deps, proxy: ports.Proxy) -> Published:
    """Publish the store's routes, record which are live and which are withdrawn, wake who waits.

    Reads the sandboxes to withdraw BEFORE the table. A sandbox that stops in between is then still
    in the table, and is not recorded as withdrawn. Raises errors.ProxyRejected,
    errors.ProxyUnavailable: then nothing is recorded.
    """
    withdrawn = [sandbox.id for sandbox in _unrouted_sandboxes(deps) if sandbox.routed]
    rows = deps.store.sandboxes.routes()
    table = build_table(route for _, route in rows)
    proxy.publish(table)
    left_out = set(table.ambiguous)
    live = {sandbox_id: route for sandbox_id, route in rows if route not in left_out}
    _suspect_hosts(deps, [(sandbox_id, route) for sandbox_id, route in rows if route in left_out])
    changed = deps.store.sandboxes.mark_routes(live, withdrawn, deps.clock.now())
    _wake_waiting(deps, changed)
    return Published(routes=len(live), changed=len(changed))


def _suspect_hosts(deps: Deps, left_out: Sequence[tuple[SandboxId, Route]]) -> None:
    """Report routes that can't be published, and take their hosts out of placement."""
    for sandbox_id, route in left_out:
        reason = f"another app has the route {route.slug} or {route.address}:{route.port}, too"
        log.error("route_ambiguous", sandbox=sandbox_id, slug=route.slug, reason=reason)
        claims.mark_suspect(deps, deps.store.sandboxes.get(sandbox_id).host_id, reason)


def _unrouted_sandboxes(deps: Deps) -> Sequence[Sandbox]:
    return deps.store.sandboxes.list(states=[SandboxState.STOPPING, SandboxState.BROKEN])


def _wake_waiting(deps: Deps, sandboxes: Sequence[Sandbox]) -> None:
    is_pool_concerned = False
    for sandbox in sandboxes:
        if sandbox.session_id is None or sandbox.state is SandboxState.STOPPING:
            is_pool_concerned = True  # it can be claimed, or removed
        elif planner.awaits_route(session := deps.store.sessions.get(sandbox.session_id)):
            nudge(deps, session)
    if is_pool_concerned:
        deps.events.pool_changed()
