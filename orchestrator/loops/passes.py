"""The daemon's loops, as data: which pass each runs, how often, and which events wake it.

daemon.py runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.ids import HostId, SessionId
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.loops.backoff import Backoff
from orchestrator.loops.cpu_limiter import CpuLimiter
from orchestrator.loops.engine_calls import EngineCalls
from orchestrator.loops.host_passes import HostPasses
from orchestrator.loops.loop import LoopSpec
from orchestrator.loops.reconciler import Reconciler
from orchestrator.ports import topics
from orchestrator.services import nudges, storage
from orchestrator.services.deps import Deps
from orchestrator.services.pool import reconcile, refill, routes
from orchestrator.services.sessions import quotas, starts
from orchestrator.services.sessions.due import RecentNudges, nudge_due_sessions
from orchestrator.slim import structlog

_PRUNE_AFTER = timedelta(days=30)
_SURPLUS_KEPT = timedelta(minutes=10)  # somebody may just be looking at how it ended
_USAGE_KEPT = timedelta(days=400)  # so that a month can be compared with the year before
_EXPIRE_PER_PASS = 200
_COMPARE_EVERY = timedelta(seconds=30)
_ASK_EVERY = timedelta(seconds=0.5)
_REST_S = 2.0  # between passes that events wake, while nothing happens: what a lost one costs
_LONG_REST_S = 5.0  # of passes whose work on each host has a longer interval of its own
_BURST_S = 0.01  # what comes within it is one pass
_STARTING_S = 0.05  # before routes of new sandboxes are live: their containers take far longer
_NOBODY_WAITS_S = 0.1  # before passes that no user waits for; a burst wakes them all the time
# Topics within this process, of what is seen through the links.
LINKS = "links"  # a host can be reached, or not any more
CONTAINERS = "containers"  # one has ended that nobody here removes

log = structlog.get_logger()


def loop_specs(
    deps: Deps,
    proxy: ports.Proxy,
    hosts: HostPasses,
    reconciler: Reconciler,
    calls: EngineCalls,
    limiter: CpuLimiter,
    warn: Callable[[Sequence[str]], None],
    on_due: Callable[[SessionId], None],
) -> Sequence[LoopSpec]:
    """All loops, in the order in which they stop: those that make sandboxes first, the publisher
    last. `calls` starts and removes containers, `limiter` changes their CPU limits. `warn` gets all
    missing fences of all hosts whenever they change, `on_due` the sessions at which no worker
    looks."""
    launcher = Launcher(deps, calls)
    publisher = Publisher(deps, proxy)
    return (
        LoopSpec(
            name="refill",
            every_s=0.5,
            rest_s=_REST_S,
            run=launcher.refill,
            topics=(topics.POOL, topics.HOSTS),
            gather_s=_NOBODY_WAITS_S,
        ),
        LoopSpec(
            name="start",
            every_s=0.5,
            rest_s=_REST_S,
            run=launcher.start_placed,
            topics=(topics.ROUTES,),
        ),
        LoopSpec(
            name="nudge",
            every_s=0.5,
            rest_s=_REST_S,
            run=_nudger(deps, on_due),
            topics=(topics.POOL, topics.HOSTS, topics.DUE),
            gather_s=_BURST_S,
        ),
        LoopSpec(name="reap", every_s=1.0, rest_s=_REST_S, run=_freeing_room(deps, _reap)),
        LoopSpec(
            name="links",
            every_s=1.0,
            rest_s=_REST_S,
            run=hosts.update_links,
            topics=(topics.HOSTS, LINKS),
        ),
        LoopSpec(name="ports", every_s=2.0, run=hosts.check_ports),
        LoopSpec(name="refresh", every_s=2.0, rest_s=_LONG_REST_S, run=hosts.refresh),
        LoopSpec(
            name="drain",
            every_s=1.0,
            rest_s=_REST_S,
            run=hosts.drain,
            topics=(topics.POOL, topics.HOSTS),
            gather_s=_NOBODY_WAITS_S,
        ),
        LoopSpec(
            name="fence",
            every_s=2.0,
            rest_s=_LONG_REST_S,
            run=lambda: hosts.check_fences(warn),
        ),
        LoopSpec(name="limits", every_s=1.0, rest_s=_REST_S, run=limiter.run),
        LoopSpec(
            name="reconcile",
            every_s=2.0,
            rest_s=_LONG_REST_S,
            run=reconciler.run,
            topics=(LINKS, CONTAINERS),
            gather_s=_BURST_S,
        ),
        LoopSpec(
            name="clear",
            every_s=0.5,
            rest_s=_REST_S,
            run=lambda: _clear(deps, calls),
            topics=(topics.ROUTES, topics.POOL),
            gather_s=_NOBODY_WAITS_S,
        ),
        LoopSpec(name="prune", every_s=60.0, run=_freeing_room(deps, _prune), patience=10),
        LoopSpec(
            name="publish",
            every_s=1.0,
            rest_s=_REST_S,
            run=publisher.publish,
            topics=(topics.ROUTES,),
            urgent=(topics.SWITCHES,),
            gather_s=_STARTING_S,
        ),
    )


class Launcher:
    """Starts sandboxes: those that sessions wait for, and those that refill the warm pool.

    Starts run in parallel. A host on which a warm one failed gets no more of them for a while.
    """

    def __init__(self, deps: Deps, calls: EngineCalls) -> None:
        self._deps = deps
        self._calls = calls
        self._backoff = Backoff(deps.clock)

    def refill(self) -> str:
        if refill.is_full(self._deps):
            return ""  # as nearly always
        self._calls.pace.begin_pass()
        level = refill.measure_level(self._deps, self._calls.pace.arrivals)
        retired = refill.retire_surplus(self._deps, level)
        avoid = [HostId(host_id) for host_id in self._backoff.pausing()]
        decision = refill.start_missing(self._deps, self._begin, level, avoid)
        if not decision.starts and not retired:
            return ""
        return f"starts={decision.starts} retired={retired}"

    def start_placed(self) -> str:
        """Start the sandboxes that have no container yet: sessions placed them, or an earlier
        daemon died before it started them."""
        begun = [self._begin(sandbox) for sandbox in self._deps.store.sandboxes.unstarted()]
        return f"begun={sum(begun)}" if any(begun) else ""

    def _begin(self, sandbox: Sandbox) -> bool:
        return self._calls.start(sandbox, lambda: self._start(sandbox))

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
            log.warning(
                "warm_start_failed",
                sandbox=sandbox.id,
                host=sandbox.host_id,
                code=error.code,
                error=str(error),
                retry_in_s=self._backoff.fail(sandbox.host_id),
            )
        else:
            self._backoff.succeed(sandbox.host_id)


class Publisher:
    """Publishes the route table at start, when a route changed, and when the proxy lost it.

    The store tells which routes it changed, and the proxy which table it has. So all of them are
    compared only now and then.
    """

    def __init__(self, deps: Deps, proxy: ports.Proxy) -> None:
        self._deps = deps
        self._proxy = proxy
        self._in_force: str | None = None  # the table that was published last
        self._compared_at: datetime | None = None
        self._asked_at = deps.clock.now()

    def publish(self) -> str:
        now = self._deps.clock.now()
        is_comparison = self._compared_at is None or now - self._compared_at >= _COMPARE_EVERY
        if not is_comparison and not self._has_changed(now):
            return ""
        published = routes.publish(self._deps, self._proxy, afresh=is_comparison)
        self._in_force, self._asked_at = published.digest, now
        if is_comparison:
            self._compared_at = now
        return f"routes={published.routes} changed={published.changed}" if published.changed else ""

    def _has_changed(self, now: datetime) -> bool:
        """Whether the store has other routes than the proxy. The proxy is asked twice a second at
        most, however often events wake us."""
        if self._deps.store.sandboxes.has_unpublished_routes():
            return True
        if now - self._asked_at < _ASK_EVERY:
            return False
        self._asked_at = now
        return self._proxy.published() != self._in_force


def _clear(deps: Deps, calls: EngineCalls) -> str:
    """Advance BROKEN and STOPPING sandboxes. Each is removed for itself."""
    calls.pace.begin_pass()
    count = reconcile.clear_loose_ends(deps, calls.remove)
    return f"leftovers={count}" if count else ""


def _nudger(deps: Deps, on_due: Callable[[SessionId], None]) -> Callable[[], str]:
    recent = RecentNudges()

    def run() -> str:
        due = nudge_due_sessions(deps, recent)
        for session_id in due.overdue:
            on_due(session_id)
        return f"nudged={due.nudged}" if due.nudged else ""

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
    sessions += deps.store.sessions.prune_surplus(
        now - _SURPLUS_KEPT, per_user=deps.policy.ended_per_user, total=deps.policy.ended_total
    )
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
