"""The daemon's loops, as data: which pass each runs, how often, and which events wake it.

Called by spawn-daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.pool.host import STARTS_AT_ONCE
from orchestrator.domain.pool.refill import SESSIONS_ARRIVING
from orchestrator.domain.pool.routes import build_table
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.loops.bulkhead import Bulkhead
from orchestrator.loops.host_passes import HostPasses, Reconciler
from orchestrator.loops.loop import LoopSpec
from orchestrator.services import nudges, storage
from orchestrator.services.deps import Deps
from orchestrator.services.pool import reconcile, refill, routes
from orchestrator.services.sessions import quotas, starts
from orchestrator.services.sessions.due import RecentNudges, nudge_due_sessions
from orchestrator.slim import structlog

_LAUNCH_BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_REMOVALS_AT_ONCE = 4  # per host: Docker removes one container after the other anyway
_PRUNE_AFTER = timedelta(days=30)
_USAGE_KEPT = timedelta(days=400)  # so that a month can be compared with the year before
_EXPIRE_PER_PASS = 200
FLEET = "fleet"  # a topic within this process: a link, or a container seen through it, changed

log = structlog.get_logger()


def loop_specs(
    deps: Deps,
    proxy: ports.Proxy,
    hosts: HostPasses,
    reconciler: Reconciler,
    warn: Callable[[Sequence[str]], None],
    spawn: Callable[[Callable[[], None]], object] | None = None,
) -> Sequence[LoopSpec]:
    """All loops, in the order in which they stop: those that make sandboxes first, the publisher
    last. `warn` gets all missing fences of all hosts, each time they are checked. `spawn` runs a
    call to an engine, by default in a thread."""
    calls = Bulkhead(deps.clock, per_host=STARTS_AT_ONCE, spawn=spawn)
    launcher = Launcher(deps, calls)
    clearer = Clearer(deps, calls, Bulkhead(deps.clock, per_host=_REMOVALS_AT_ONCE, spawn=spawn))
    publisher = Publisher(deps, proxy)
    return (
        LoopSpec(name="refill", every_s=0.5, run=launcher.refill, topics=("pool",)),
        LoopSpec(name="start", every_s=0.5, run=launcher.start_placed, topics=("routes",)),
        LoopSpec(name="nudge", every_s=0.5, run=_nudger(deps), topics=("pool",)),
        LoopSpec(name="reap", every_s=1.0, run=_freeing_room(deps, _reap)),
        LoopSpec(name="links", every_s=1.0, run=hosts.update_links, topics=("pool", FLEET)),
        LoopSpec(name="refresh", every_s=2.0, run=hosts.refresh),
        LoopSpec(name="drain", every_s=1.0, run=hosts.drain, topics=("pool",)),
        LoopSpec(name="fence", every_s=30.0, run=lambda: hosts.check_fences(warn)),
        LoopSpec(name="reconcile", every_s=2.0, run=reconciler.run, topics=("routes", FLEET)),
        LoopSpec(name="clear", every_s=2.0, run=clearer.run, topics=("routes", "pool")),
        LoopSpec(name="prune", every_s=60.0, run=_freeing_room(deps, _prune)),
        LoopSpec(
            name="publish",
            every_s=1.0,
            run=publisher.publish,
            topics=("routes",),
            gather_s=0.01,
        ),
    )


class Launcher:
    """Starts sandboxes: those that sessions wait for, and those that refill the warm pool.

    Starts run in parallel. Those of the warm pool back off together after a failure.
    """

    def __init__(self, deps: Deps, calls: Bulkhead) -> None:
        self._deps = deps
        self._calls = calls
        self._failures = 0
        self._not_before: datetime | None = None
        self._postponed_since: datetime | None = None

    def refill(self) -> str:
        retired = refill.retire_surplus(self._deps)
        now = self._deps.clock.now()
        if self._not_before is not None and now < self._not_before:
            return f"retired={retired}" if retired else ""
        postponed_s = (now - (self._postponed_since or now)).total_seconds()
        decision = refill.start_missing(self._deps, self._begin, postponed_s)
        self._postponed_since = (
            (self._postponed_since or now) if decision.reason == SESSIONS_ARRIVING else None
        )
        if not decision.starts and not retired:
            return ""
        return f"starts={decision.starts} retired={retired}"

    def start_placed(self) -> str:
        """Start the sandboxes that have no container yet: sessions placed them, or an earlier
        daemon died before it started them."""
        begun = [self._begin(sandbox) for sandbox in self._deps.store.sandboxes.unstarted()]
        return f"begun={sum(begun)}" if any(begun) else ""

    def _begin(self, sandbox: Sandbox) -> bool:
        return self._calls.offer(sandbox.id, sandbox.host_id, lambda: self._start(sandbox))

    def _start(self, sandbox: Sandbox) -> None:
        if sandbox.session_id is None:
            self._launch(sandbox)
        else:
            starts.start(self._deps, sandbox)

    def _launch(self, sandbox: Sandbox) -> None:
        try:
            refill.launch(self._deps, sandbox)
        except errors.StaleWrite:
            return  # it was retired meanwhile; the reconcile loop removes the container
        except errors.SpawnError as error:
            wait_s = _LAUNCH_BACKOFF_S[min(self._failures, len(_LAUNCH_BACKOFF_S) - 1)]
            self._failures += 1
            self._not_before = self._deps.clock.now() + timedelta(seconds=wait_s)
            log.warning(
                "warm_start_failed",
                sandbox=sandbox.id,
                code=error.code,
                error=str(error),
                retry_in_s=wait_s,
            )
        else:
            self._failures = 0
            self._not_before = None


class Clearer:
    """Advances BROKEN and STOPPING sandboxes. Removals run side by side, each for itself."""

    def __init__(self, deps: Deps, starts_under_way: Bulkhead, removals: Bulkhead) -> None:
        self._deps = deps
        self._starts = starts_under_way
        self._removals = removals

    def run(self) -> str:
        count = reconcile.clear_loose_ends(self._deps, self._remove)
        return f"leftovers={count}" if count else ""

    def _remove(self, sandbox: Sandbox) -> bool:
        if self._starts.is_busy(sandbox.id):
            return False  # Docker may be about to make its container
        return self._removals.offer(
            sandbox.id, sandbox.host_id, lambda: reconcile.remove(self._deps, sandbox)
        )


class Publisher:
    """Publishes the route table at start, when a route changed, and when the proxy lost it."""

    def __init__(self, deps: Deps, proxy: ports.Proxy) -> None:
        self._deps = deps
        self._proxy = proxy
        self._is_first_pass = True

    def publish(self) -> str:
        is_due = (
            self._is_first_pass
            or self._deps.store.sandboxes.has_unpublished_routes()
            or self._proxy_differs()
        )
        if not is_due:
            return ""
        published = routes.publish(self._deps, self._proxy)
        self._is_first_pass = False
        return f"routes={published.routes} changed={published.changed}" if published.changed else ""

    def _proxy_differs(self) -> bool:
        """Whether the proxy serves another table than the store's, e.g. after a restart."""
        rows = self._deps.store.sandboxes.routes()
        return self._proxy.published() != build_table(route for _, route in rows).digest


def _nudger(deps: Deps) -> Callable[[], str]:
    recent = RecentNudges()

    def run() -> str:
        count = nudge_due_sessions(deps, recent)
        return f"nudged={count}" if count else ""

    return run


def _freeing_room(deps: Deps, run: Callable[[Deps], str]) -> Callable[[], str]:
    """A pass that frees room, and so goes on when the disk is full."""
    return lambda: storage.with_reserve(deps, lambda: run(deps))


def _reap(deps: Deps) -> str:
    """Set wanted = GONE for sessions whose time is up. Never touches Docker."""
    expired = deps.store.sessions.expire(deps.clock.now(), _EXPIRE_PER_PASS)
    for session in expired:
        deps.events.session_changed(session.id)
        nudges.nudge(deps, session)
    return f"expired={len(expired)}" if expired else ""


def _prune(deps: Deps) -> str:
    """Delete what is past its retention. Bytes that no version names any more go by the sweep."""
    now = deps.clock.now()
    try:
        versions = deps.store.bundles.prune(now)
    finally:
        swept = quotas.sweep_bundles(deps)  # this needs no room
    for digest in swept.missing:
        log.error("bundle_missing", sha256=digest)
    entries = deps.store.audit.prune(now - timedelta(seconds=deps.policy.audit_retention_s))
    sessions = deps.store.sessions.prune(now - _PRUNE_AFTER)
    calls = deps.store.usage.prune(now - _USAGE_KEPT)
    deps.store.generations.prune(now)
    storage.keep_reserve(deps)
    counts = {
        "versions": versions,
        "bundles": swept.deleted,
        "missing": len(swept.missing),
        "audit": entries,
        "sessions": sessions,
        "calls": calls,
    }
    return " ".join(f"{name}={count}" for name, count in counts.items() if count)
