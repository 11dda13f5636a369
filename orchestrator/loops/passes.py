"""The daemon's loops, as data: which pass, how often, woken by what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import datetime, timedelta

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.pool import routes as route
from orchestrator.domain.pool.host import STARTS_AT_ONCE
from orchestrator.domain.pool.refill import GIVING_WAY
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.loops.host_passes import Hosts, Reconciler
from orchestrator.loops.loop import LoopSpec
from orchestrator.services import nudges
from orchestrator.services.deps import Deps
from orchestrator.services.pool import reconcile, routes
from orchestrator.services.pool import refill as pool
from orchestrator.services.sessions.due import Rounds, nudge_due
from orchestrator.slim import structlog

_LAUNCH_BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_LAUNCHES = 4 * STARTS_AT_ONCE  # at once over all hosts; placements bound them for each
_PRUNE_AFTER = timedelta(days=30)
_USAGE_KEPT = timedelta(days=400)  # what the same month cost a year ago
_EXPIRE_PER_PASS = 200
FLEET = "fleet"  # a topic of this process alone: what the links see has changed

log = structlog.get_logger()


def all_loops(
    deps: Deps,
    proxy: ports.Proxy,
    hosts: Hosts,
    reconciler: Reconciler,
    warn: Callable[[Sequence[str]], None],
) -> Sequence[LoopSpec]:
    """Makers first, the publisher last: the order in which they stop. `warn` is given what the
    hosts' fences lack, all of it each time."""
    launcher = Launcher(deps)
    publisher = Publisher(deps, proxy)
    return (
        LoopSpec(name="refill", every_s=0.5, run=launcher.refill, topics=("pool",)),
        LoopSpec(name="nudge", every_s=0.5, run=_nudger(deps), topics=("pool",)),
        LoopSpec(name="reap", every_s=1.0, run=lambda: _reap(deps)),
        LoopSpec(name="links", every_s=1.0, run=hosts.look, topics=("pool", FLEET)),
        LoopSpec(name="refresh", every_s=2.0, run=hosts.refresh),
        LoopSpec(name="drain", every_s=1.0, run=hosts.drain, topics=("pool",)),
        LoopSpec(name="fence", every_s=30.0, run=lambda: hosts.fence(warn)),
        LoopSpec(name="reconcile", every_s=2.0, run=reconciler.run, topics=("routes", FLEET)),
        LoopSpec(name="clear", every_s=2.0, run=lambda: _clear(deps), topics=("routes",)),
        LoopSpec(name="prune", every_s=60.0, run=lambda: _prune(deps)),
        LoopSpec(
            name="publish",
            every_s=1.0,
            run=publisher.publish,
            topics=("routes",),
            gather_s=0.01,
        ),
    )


class Launcher:
    """Refills the warm pool; starts run beside each other, and back off together when they fail."""

    def __init__(self, deps: Deps, threads: Executor | None = None) -> None:
        self._deps = deps
        self._threads = threads or ThreadPoolExecutor(_LAUNCHES, thread_name_prefix="launch")
        self._failures = 0
        self._not_before: datetime | None = None
        self._gives_way_since: datetime | None = None

    def refill(self) -> str:
        retired = pool.retire_surplus(self._deps)
        now = self._deps.clock.now()
        if self._not_before is not None and now < self._not_before:
            return f"retired={retired}" if retired else ""
        postponed_s = (now - (self._gives_way_since or now)).total_seconds()
        done = pool.refill(
            self._deps, lambda box: self._threads.submit(self._launch, box), postponed_s
        )
        self._gives_way_since = (
            (self._gives_way_since or now) if done.reason == GIVING_WAY else None
        )
        if not done.starts and not retired:
            return ""
        return f"starts={done.starts} retired={retired}"

    def _launch(self, box: Sandbox) -> None:
        try:
            pool.launch(self._deps, box)
        except errors.StaleWrite:
            return  # it was retired meanwhile; the reconcile loop clears the container
        except errors.SpawnError as error:
            wait_s = _LAUNCH_BACKOFF_S[min(self._failures, len(_LAUNCH_BACKOFF_S) - 1)]
            self._failures += 1
            self._not_before = self._deps.clock.now() + timedelta(seconds=wait_s)
            log.warning(
                "a warm sandbox could not be started",
                sandbox=box.id,
                code=error.code,
                error=str(error),
                again_in_s=wait_s,
            )
        except BaseException:
            log.exception("launching a warm sandbox failed", sandbox=box.id)
        else:
            self._failures = 0
            self._not_before = None


class Publisher:
    """Publishes when the store says so, at start, and when the proxy lost what it had."""

    def __init__(self, deps: Deps, proxy: ports.Proxy) -> None:
        self._deps = deps
        self._proxy = proxy
        self._first = True

    def publish(self) -> str:
        due = self._first or self._deps.store.sandboxes.unsettled_routes() or self._lost()
        if not due:
            return ""
        done = routes.publish(self._deps, self._proxy)
        self._first = False
        return f"routes={done.routes} changed={done.changed}" if done.changed else ""

    def _lost(self) -> bool:
        """Whether the proxy serves another table than the store holds, e.g. after its restart."""
        rows = self._deps.store.sandboxes.routes()
        return self._proxy.published() != route.table(found for _, found in rows).digest


def _nudger(deps: Deps) -> Callable[[], str]:
    rounds = Rounds()

    def run() -> str:
        count = nudge_due(deps, rounds)
        return f"nudged={count}" if count else ""

    return run


def _reap(deps: Deps) -> str:
    """Set wanted = GONE where the time is up. Never touches Docker."""
    expired = deps.store.sessions.expire(deps.clock.now(), _EXPIRE_PER_PASS)
    for found in expired:
        deps.events.session_changed(found.id)
        nudges.nudge(deps, found)
    return f"expired={len(expired)}" if expired else ""


def _clear(deps: Deps) -> str:
    count = reconcile.clear(deps)
    return f"leftovers={count}" if count else ""


def _prune(deps: Deps) -> str:
    now = deps.clock.now()
    gone = deps.store.bundles.take_expired(now)
    for digest in gone:
        deps.bundles.discard(digest)
    sessions = deps.store.sessions.prune(now - _PRUNE_AFTER)
    calls = deps.store.usage.prune(now - _USAGE_KEPT)
    deps.store.generations.prune(now)
    if not (gone or sessions or calls):
        return ""
    return f"bundles={len(gone)} sessions={sessions} calls={calls}"
