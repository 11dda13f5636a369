"""Gives the next version of an app all that the app has stored, and replaces the app by it.

`workshop.py` copies the data for each try of that version, `runner.py` hands over at the end. Both
copy in two steps: most of it while the app goes on, the rest while visitors wait. If the app has
written after the try, the version is started again with a new copy. If anything fails, the app
serves on, with its data and those visitors.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from agent.apps.app import App
from agent.console import log
from agent.failures import AssignmentFailed, is_full, no_room
from agent.jobs.app_data import AppData
from agent.serving.site import Site
from agent.serving.stage import Stage
from agent.threads import in_thread
from orchestrator.contract import archive
from orchestrator.contract.bundles import BundleInvalid
from orchestrator.contract.wire import FailureCode

WRITE_LIMIT_S = 5.0
"""For writes under way when the app is replaced. Those that take longer are refused: what they
wrote may have missed the copy."""
TRIED_WRITE_LIMIT_S = 0.5
"""The same for a try, which is made with a copy that will be replaced."""


class Handover:
    """From the app that `stage` shows, if any, to its next version."""

    def __init__(self, stage: Stage, site: Site) -> None:
        self._stage = stage
        self._site = site
        app = stage.app
        self._data = AppData(app.slot.folder, app.sources) if app is not None else None
        self._packed: bytes | None = None  # the bundle of the version that has the copies

    @property
    def replaces_app(self) -> bool:
        """Whether an app is shown already."""
        return self._data is not None

    async def note_bundle(self, folder: str) -> None:
        """Note what the app was delivered with: `folder` has its bundle, as it is so far."""
        if self._data is not None:
            await in_thread(self._data.note_bundle, folder)

    async def check_room(self) -> None:
        """Raises AssignmentFailed(NO_ROOM) if the data wouldn't fit a second time."""
        if self._data is not None:
            with _room_needed():
                await in_thread(self._data.check_room)

    async def copy_data(self, app: App, packed: bytes) -> None:
        """Copy the data to the slot of `app`, which holds nothing but its bundle `packed`.

        Raises AssignmentFailed(NO_ROOM), and OSError if it can't be copied for another reason.
        """
        if self._data is None:
            return
        self._packed = packed
        with _room_needed():
            await in_thread(self._data.copy, app.slot.folder, app.sources)
            with self._site.hold():
                await self._site.wait_until_answered(
                    self._site.slot, write_limit_s=TRIED_WRITE_LIMIT_S
                )
                await in_thread(self._data.update)

    async def finish(self, app: App) -> None:
        """Show `app`, which was tried and runs. Raises AssignmentFailed; then it runs no more."""
        data, packed = self._data, self._packed
        try:
            if data is None or packed is None:  # a version of old starts without data
                self._stage.show(app)
            elif not await self._show_if_current(app, data):
                await self._show_with_new_copy(app, data, packed)
        finally:
            if self._stage.app is not app:
                await app.stop()

    async def _show_if_current(self, app: App, data: AppData) -> bool:
        """Show it unless the app before has written since the try."""
        if await in_thread(data.has_changed):
            return False
        async with self._quiet():
            if await in_thread(data.has_changed):
                return False
            self._stage.show(app)
        return True

    async def _show_with_new_copy(self, app: App, data: AppData, packed: bytes) -> None:
        await app.stop()
        try:
            # What it made during its try goes: its data is that of the app before.
            await in_thread(archive.unpack, packed, app.slot.folder)
            await in_thread(app.note_sources)
            await in_thread(data.copy, app.slot.folder, app.sources)
        except (BundleInvalid, OSError) as error:
            raise _not_copied(app, error) from error
        loop = asyncio.get_running_loop()
        async with self._quiet():
            began_at_s = loop.time()
            try:
                await in_thread(data.update)
            except OSError as error:
                raise _not_copied(app, error) from error
            problem = await app.start()
            if problem:
                message = f"The app {problem}, when it was started with its users' latest data."
                raise app.failure(FailureCode.APP_NOT_READY, message)
            self._stage.show(app)
        log("data_handed_over", held_ms=round((loop.time() - began_at_s) * 1000))

    @contextlib.asynccontextmanager
    async def _quiet(self) -> AsyncIterator[None]:
        """Hold requests. What the app has acknowledged, and will acknowledge, is in its files."""
        slot = self._site.slot
        with self._site.hold():
            await self._site.wait_until_answered(slot, write_limit_s=WRITE_LIMIT_S)
            with self._site.refuse_late_writes(slot):
                yield


@contextlib.contextmanager
def _room_needed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise no_room() from error
        raise


def _not_copied(app: App, error: Exception) -> AssignmentFailed:
    if is_full(error):
        return no_room()
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    message = f"The data of the version before can't be copied: {reason}."
    return app.failure(FailureCode.APP_NOT_READY, message)
