"""Shows one app to the outside, and replaces it by the next one without a failed request.

Used by `runner.py`. The next app is made and tried in the free slot. `show` moves the front to it;
the app before finishes its requests and is then stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from agent.apps.app import PROCESSES_MAX, App
from agent.failures import AssignmentFailed
from agent.serving.site import SLOTS, Serving, Site, Slot
from agent.threads import in_thread
from orchestrator.contract.trees import remove_tree

GRACE_S = 5.0
"""For the requests of a replaced app. Longer ones, and WebSockets, are cut off."""


class Stage:
    """Holds the app that is shown, and keeps it running."""

    def __init__(
        self,
        site: Site,
        tasks: asyncio.TaskGroup,
        *,
        on_failure: Callable[[AssignmentFailed], None],
        slots: Sequence[Slot] = SLOTS,
        processes_max: int = PROCESSES_MAX,
    ) -> None:
        """`on_failure` is called when an app is given up because it crashed too often.

        `processes_max` is for all that can be seen in /proc; in a sandbox that is ours alone.
        """
        self.app: App | None = None
        self._site = site
        self._tasks = tasks
        self._on_failure = on_failure
        self._slots = slots
        self._processes_max = processes_max
        self._watching: asyncio.Task[None] | None = None
        self._retiring: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def free_slot(self) -> AsyncIterator[Slot]:
        """The slot for the next app. Waits until the app before has left it.

        Unless an app is shown from it at the end, what is in its folder goes: a copy of the shown
        app's data takes the room that this app writes to. Nothing may run in it then.
        """
        if self._retiring is not None:
            await asyncio.wait({self._retiring})
        taken = None if self.app is None else self.app.slot
        slot = next(slot for slot in self._slots if slot != taken)
        try:
            yield slot
        finally:
            if self.app is None or self.app.slot != slot:
                await in_thread(remove_tree, slot.folder)

    def show(self, app: App) -> None:
        """Have this app answer from the next request on. It must have started."""
        replaced, self.app = self.app, app
        watching = self._watching
        self._site.show(app.serving, app.slot, app.files)
        self._watching = self._tasks.create_task(self._watch(app))
        if replaced is not None:
            self._retiring = self._tasks.create_task(self._retire(replaced, watching))

    def announce(self, serving: Serving) -> None:
        """Set how the front answers while there is no app to show."""
        if self.app is None:
            self._site.show(serving, self._site.slot)

    async def close(self) -> None:
        """Stop all apps."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        if self._retiring is not None:
            await asyncio.wait({self._retiring})
        if self.app is not None:
            await self.app.stop()

    async def _watch(self, app: App) -> None:
        try:
            await app.keep_running(self._site, processes_max=self._processes_max)
        except AssignmentFailed as failure:
            self.app = None
            self.announce(Serving.STOPPED)
            self._on_failure(failure)

    async def _retire(self, app: App, watching: asyncio.Task[None] | None) -> None:
        if watching is not None:
            watching.cancel()
            await asyncio.wait({watching})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self._site.wait_until_drained(app.slot)
        await app.stop()
        await in_thread(remove_tree, app.slot.folder)
