"""Compares hosts with the store. The daemon's reconcile loop runs it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import Host
from orchestrator.loops.backoff import Backoff
from orchestrator.loops.bulkhead import Spawn
from orchestrator.loops.engine_calls import EngineCalls
from orchestrator.loops.host_tasks import HostTasks
from orchestrator.services.agents import presence
from orchestrator.services.deps import Deps
from orchestrator.services.pool import host_life, reconcile
from orchestrator.slim import structlog

_ROUND = 10  # passes within which every host is compared at least once

log = structlog.get_logger()


class Reconciler:
    """Compares hosts with the store.

    A host whose containers changed is compared at once. All hosts take turns, so that a difference
    that no event told is found within _ROUND passes.
    """

    def __init__(
        self,
        deps: Deps,
        fleet: ports.Fleet,
        calls: EngineCalls,
        pauses: Backoff | None = None,
        spawn: Spawn | None = None,
    ) -> None:
        """`calls` removes orphans. `spawn` runs a comparison, by default in a thread."""
        self._deps = deps
        self._fleet = fleet
        self._calls = calls
        self._listener_watch = presence.ListenerWatch(since=deps.clock.now())
        self._tasks = HostTasks(
            deps.clock,
            pauses=pauses,
            suspect=functools.partial(host_life.set_aside, deps),
            spawn=spawn,
        )
        self._turn = 0
        self._due: set[HostId] = set()  # hosts that no comparison has begun on since they changed

    def run(self) -> str:
        """One pass. Returns a summary for the log."""
        self._look()
        self._due.update(self._fleet.take_changed())
        hosts = self._deps.store.hosts.list()
        self._due.difference_update(self._due - {host.id for host in hosts})  # they have left
        self._due.update(_share([host.id for host in hosts], self._turn % _ROUND))
        self._turn += 1
        due = [host for host in hosts if host.id in self._due]
        return self._tasks.run(due, self._compare)

    def _look(self) -> None:
        before = self._listener_watch.silence
        self._listener_watch.look(self._deps)
        silence = self._listener_watch.silence
        if silence and not before:
            total = silence.total
            log.error("agents_fell_silent", overdue=total.overdue, agents=total.agents)
        elif before and not silence:
            log.warning("agents_heard_again", agents=silence.total.agents)

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


def _share(host_ids: Sequence[HostId], turn: int) -> Iterator[HostId]:
    """The hosts whose turn it is, in rounds of _ROUND passes."""
    return (host_id for index, host_id in enumerate(host_ids) if index % _ROUND == turn)
