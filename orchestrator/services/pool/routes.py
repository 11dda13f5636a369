"""Publishing the route table. Called by the publish loop; each function is one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator import ports
from orchestrator.domain.pool import routes as route
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge


@dataclass(frozen=True, kw_only=True)
class Published:
    """What one publication changed."""

    routes: int
    changed: int  # sandboxes whose route became live or was withdrawn


def publish(deps: Deps, proxy: ports.Proxy) -> Published:
    """Render the table from the store, have the proxy confirm it, then write down what is live and
    what is withdrawn, and wake whoever waits for that.

    What is withdrawn is read BEFORE the table: a sandbox that stops in between is then still in
    the table, and is not marked. Raises ProxyRejected, ProxyUnavailable: nothing is marked.
    """
    stopping = [box for box in _unrouted_states(deps) if box.routed]
    rows = deps.store.sandboxes.routes()
    table = route.table(found for _, found in rows)
    proxy.publish(table)
    live = {sandbox_id: found.slug for sandbox_id, found in rows}
    changed = deps.store.sandboxes.mark_routes(live, [box.id for box in stopping], deps.clock.now())
    _wake(deps, changed)
    return Published(routes=len(live), changed=len(changed))


def _unrouted_states(deps: Deps) -> Sequence[Sandbox]:
    return deps.store.sandboxes.list(states=[SandboxState.STOPPING, SandboxState.BROKEN])


def _wake(deps: Deps, changed: Sequence[Sandbox]) -> None:
    for box in changed:
        if box.session_id is not None:
            nudge(deps, deps.store.sessions.get(box.session_id))
    if any(box.session_id is None for box in changed):
        deps.events.pool_changed()
