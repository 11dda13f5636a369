"""Wakes the polls of agents whose wake-up was lost. server.py runs it.

Whoever changes what a sandbox is to run sends an event. If its process is killed just before, the
agent's poll would wait to its end. One look at all sandboxes costs less than one of each poll.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId
from orchestrator.entrypoints.api.context import Context
from orchestrator.ports import topics
from orchestrator.slim import structlog

_EVERY_S = 2.0

log = structlog.get_logger()


class LostWakeUps:
    """Remembers what each sandbox had. Use it from one event loop only."""

    def __init__(self, context: Context, every_s: float = _EVERY_S) -> None:
        self._context = context
        self._every_s = every_s
        self._assigned: Mapping[SandboxId, int] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
            except errors.Temporary as error:
                log.warning("assignments_not_read", code=error.code, error=str(error))

    async def look(self) -> None:
        """Wake the polls of the sandboxes whose session has changed since the last look.

        Raises errors.Temporary.
        """
        before = self._assigned
        now = await self._context.in_thread(self._context.deps.store.pool.assigned)
        self._assigned = now
        for sandbox_id in {sandbox_id for sandbox_id, _ in before.items() ^ now.items()}:
            self._context.hub.wake(topics.topic_of(topics.INBOX, sandbox_id))
