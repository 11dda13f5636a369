"""Gives sandboxes the CPU limits that they are to have. The daemon's limits loop runs it.

What is wanted follows from the store alone, so it doesn't matter who dies meanwhile. On each host
one limit is changed after the other, beside its starts and never before them.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence

from orchestrator.domain import errors
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.cpu_limits import CpuChange, CpuHolder, plan
from orchestrator.domain.pool.host import Host, HostState
from orchestrator.loops.backoff import Backoff
from orchestrator.loops.bulkhead import Spawn
from orchestrator.loops.host_tasks import HostTasks
from orchestrator.services.deps import Deps
from orchestrator.services.pool import cpu_limits, host_life
from orchestrator.slim import structlog

log = structlog.get_logger()


class CpuLimiter:
    """Raises and lowers CPU limits. A sandbox whose change failed is left alone for a while."""

    def __init__(
        self, deps: Deps, pauses: Backoff | None = None, spawn: Spawn | None = None
    ) -> None:
        """`pauses` are shared with the other passes over hosts. `spawn` runs the changes of one
        host, by default in a thread."""
        self._deps = deps
        self._backoff = Backoff(deps.clock)
        self._tasks = HostTasks(
            deps.clock,
            pauses=pauses,
            suspect=functools.partial(host_life.set_aside, deps),
            spawn=spawn,
        )

    def run(self) -> str:
        """One pass. Returns a summary for the log."""
        holders: dict[HostId, list[CpuHolder]] = defaultdict(list)
        for holder in self._deps.store.sandboxes.cpu_holders():
            holders[holder.host_id].append(holder)
        for host in self._deps.store.pool.hosts(holders.keys()) if holders else ():
            if host.state is HostState.UP:
                self._offer(host, holders[host.id])
        return self._tasks.take_summary()

    def _offer(self, host: Host, holders: Sequence[CpuHolder]) -> None:
        changes = plan(holders, host, self._deps.policy.cpus, self._deps.clock.now())
        paused = self._backoff.pausing()
        due = [change for change in changes if change.holder.sandbox_id not in paused]
        if due:
            self._tasks.offer(host, functools.partial(self._change, changes=due))

    def _change(self, host: Host, *, changes: Sequence[CpuChange]) -> str:
        """Make these changes until one fails: the next pass plans again with what came of it."""
        for count, change in enumerate(changes):
            try:
                cpu_limits.change(self._deps, host, change)
            except errors.TermOver:
                raise
            except errors.SpawnError as error:
                sandbox_id = change.holder.sandbox_id
                log.warning(
                    "cpu_limit_failed",
                    sandbox=sandbox_id,
                    host=host.name,
                    raised=change.raised,
                    code=error.code,
                    error=str(error),
                    retry_in_s=self._backoff.fail(sandbox_id),
                )
                return f"changed={count}" if count else ""
            self._backoff.succeed(change.holder.sandbox_id)
        return f"changed={len(changes)}"
