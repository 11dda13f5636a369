"""Shows one app to the outside, and changes it for the next without a failed request.

Used by `runner.py`. The next app is made and tried in the free slot; `show` moves the front to it,
while the one before finishes what it is answering and then goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable

from agent.apps.app import App
from agent.protocol import AssignmentFailed
from agent.serving.site import SLOTS, Serving, Site, Slot
from agent.threads import in_thread

GRACE_S = 5.0
"""What a replaced app gets for requests under way; longer ones, and WebSockets, are cut."""


class Stage:
    """Knows the app that is shown, and sees to it that it keeps running."""

    def __init__(
        self,
        site: Site,
        tasks: asyncio.TaskGroup,
        *,
        on_failure: Callable[[AssignmentFailed], None],
    ) -> None:
        """`on_failure` hears of the end of an app that no restart can help."""
        self.app: App | None = None
        self._site = site
        self._tasks = tasks
        self._on_failure = on_failure
        self._watching: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None

    async def free_slot(self) -> Slot:
        """Where the next app can be made. Waits until the last one has left it."""
        if self._leaving is not None:
            await asyncio.wait({self._leaving})
        taken = None if self.app is None else self.app.slot
        return next(slot for slot in SLOTS if slot != taken)

    def show(self, app: App) -> None:
        """From the next request on, this app answers. It must have started."""
        before, self.app = self.app, app
        watching = self._watching
        self._site.show(app.serving, app.slot)
        self._watching = self._tasks.create_task(self._keep(app))
        if before is not None:
            self._leaving = self._tasks.create_task(self._let_go(before, watching))

    def announce(self, serving: Serving) -> None:
        """Say what the front answers while there is no app to show."""
        if self.app is None:
            self._site.show(serving, self._site.slot)

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        if self._leaving is not None:
            await asyncio.wait({self._leaving})
        if self.app is not None:
            await self.app.stop()

    async def _keep(self, app: App) -> None:
        try:
            await app.keep_running(self._site)
        except AssignmentFailed as failure:
            self.app = None
            self.announce(Serving.STOPPED)
            self._on_failure(failure)

    async def _let_go(self, app: App, watching: asyncio.Task[None] | None) -> None:
        if watching is not None:
            watching.cancel()
            await asyncio.wait({watching})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self._site.deserted(app.slot)
        await app.stop()
        await in_thread(shutil.rmtree, app.slot.folder, ignore_errors=True)
