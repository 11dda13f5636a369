"""The starts and removals of containers that run right now. The daemon has one EngineCalls.

All passes that start or remove share it: refill and start, clear and reconcile.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.host import STARTS_AT_ONCE, Host
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.domain.pool.sandbox_diagnosis import Container
from orchestrator.loops.bulkhead import Bulkhead, Spawn
from orchestrator.loops.pace import Pace
from orchestrator.services.deps import Deps
from orchestrator.services.pool import reconcile
from orchestrator.slim import structlog

_REMOVALS_AT_ONCE = 4  # per host: Docker removes one container after the other anyway

log = structlog.get_logger()


class EngineCalls:
    """Starts and removals, each in a thread of its own, a few at once on each host.

    Each method begins its call now, or leaves it to the next pass. It returns which.
    """

    def __init__(self, deps: Deps, spawn: Spawn | None = None) -> None:
        self._deps = deps
        self._starts = Bulkhead(deps.clock, per_host=STARTS_AT_ONCE, spawn=spawn)
        self.pace = Pace(deps)
        self._removals = Bulkhead(deps.clock, per_host=_REMOVALS_AT_ONCE, spawn=spawn)

    def stop(self, timeout_s: float) -> None:
        """Begin no more starts, and wait for those that run: whoever removes all containers after
        us must not miss one that Docker is about to make."""
        if not self._starts.stop(timeout_s):
            log.warning("starts_cut_off")

    def start(self, sandbox: Sandbox, start: Callable[[], None]) -> bool:
        return self._starts.offer(sandbox.id, sandbox.host_id, start)

    def is_removing(self, sandbox_id: SandboxId) -> bool:
        """Whether we remove its container right now."""
        return self._removals.is_busy(sandbox_id)

    def remove(self, sandbox: Sandbox) -> bool:
        """Remove a STOPPING sandbox with its container."""
        return self._remove(
            sandbox.id, sandbox.host_id, lambda: reconcile.remove(self._deps, sandbox)
        )

    def remove_orphan(self, host: Host, container: Container) -> bool:
        """Remove a container that no sandbox owns."""
        engine = self._deps.engines.for_host(host)
        return self._remove(
            container.sandbox_id, host.id, lambda: engine.remove(container.sandbox_id)
        )

    def _remove(self, sandbox_id: SandboxId, host_id: HostId, call: Callable[[], None]) -> bool:
        if self._starts.is_busy(sandbox_id):
            return False  # Docker may be about to make its container
        at_most = self.pace.at_once(_REMOVALS_AT_ONCE)
        return self._removals.offer(sandbox_id, host_id, call, at_most=at_most)
