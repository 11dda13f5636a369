"""Compares hosts with the store. The daemon's reconcile loop runs it."""

from __future__ import annotations

import functools
from datetime import datetime, timedelta

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import Host
from orchestrator.loops.backoff import Backoff
from orchestrator.loops.bulkhead import Spawn
from orchestrator.loops.engine_calls import EngineCalls
from orchestrator.loops.host_book import HostBook, Turns
from orchestrator.loops.host_tasks import HostTasks
from orchestrator.services.agents import presence
from orchestrator.services.deps import Deps
from orchestrator.services.pool import host_life, reconcile
from orchestrator.slim import structlog

_LISTEN_EVERY = timedelta(seconds=5)  # well within presence.LOOK_MAX

log = structlog.get_logger()


class Reconciler:
    """Compares hosts with the store.

    A host whose containers changed is compared at once, and so is one with an agent that is late.
    All hosts take turns, so that a difference that nothing told is found too: in a large pool
    later than in a small one.
    """

    def __init__(
        self,
        deps: Deps,
        fleet: ports.Fleet,
        calls: EngineCalls,
        pauses: Backoff | None = None,
        spawn: Spawn | None = None,
        book: HostBook | None = None,
    ) -> None:
        """`calls` removes orphans. `spawn` runs a comparison, by default in a thread."""
        self._deps = deps
        self._book = book or HostBook(deps)
        self._turns = Turns(passes=10, at_most=10)
        self._fleet = fleet
        self._calls = calls
        self._listener_watch = presence.ListenerWatch(since=deps.clock.now())
        self._tasks = HostTasks(
            deps.clock,
            pauses=pauses,
            suspect=functools.partial(host_life.set_aside, deps),
            spawn=spawn,
        )
        self._listened_at: datetime | None = None
        self._due: set[HostId] = set()  # hosts that no comparison has begun on since they changed

    def run(self) -> str:
        """One pass. Returns a summary for the log."""
        self._listen()
        self._due.update(self._fleet.take_changed())
        look = self._book.look(frozenset(self._due), self._turns)
        self._due.update(look.in_turn)
        self._due.intersection_update(look.hosts.keys())  # the others have left
        return self._tasks.run(look.pick(frozenset(self._due)), self._compare)

    def _listen(self) -> None:
        """Learn which agents are heard, every few seconds. Those that are late may have failed,
        unless many are."""
        now = self._deps.clock.now()
        if self._listened_at is not None and now - self._listened_at < _LISTEN_EVERY:
            return
        self._listened_at = now
        watch = self._listener_watch
        before = watch.silence
        watch.look(self._deps)
        silence = watch.silence
        if silence and not before:
            total = silence.total
            log.error("agents_fell_silent", overdue=total.overdue, agents=total.agents)
        elif before and not silence:
            log.warning("agents_heard_again")
        if not silence.everywhere:
            self._due.update(watch.late_hosts - silence.hosts)

    def _compare(self, host: Host) -> str:
        self._due.discard(host.id)
        containers = self._fleet.containers(host)
        if containers is None:
            return ""  # unreachable isn't unhealthy; the links pass reports it
        try:
            hearing = self._listener_watch.hearing_of(host)
            result = reconcile.reconcile(
                self._deps, host, containers, hearing, self._calls.remove_orphan
            )
        except errors.Temporary:
            self._due.add(host.id)
            raise
        if result.uncertain:
            self._due.add(host.id)
        if not (result.orphans or result.broken):
            return ""
        return f"orphans={result.orphans} broken={result.broken}"
