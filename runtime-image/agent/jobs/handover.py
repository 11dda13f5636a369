"""Gives the next version of an app all that the app has stored, and replaces the app by it.

`workshop.py` copies the data for each try of that version, `runner.py` hands over at the end. Both
copy in two steps: most of it while the app goes on, the rest while visitors wait. If the app has
written after the try, the version is started again with a new copy. If anything fails, the app
serves on, with its data and those visitors.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from agent.apps.app import App
from agent.console import log
from agent.data.app_data import AppData
from agent.failures import AssignmentFailed, is_full, no_room
from agent.serving.site import Site
from agent.serving.stage import Stage
from agent.threads import in_thread
from orchestrator.contract import archive
from orchestrator.contract.bundles import BundleInvalid, shown
from orchestrator.contract.wire import FailureCode

WRITE_LIMIT_S = 5.0
"""For writes under way when the app is replaced. Those that take longer are refused."""
TRIED_WRITE_LIMIT_S = 0.5
"""For a try, which is made with a copy that will be replaced. Those that take longer wait."""
NAMED_MAX = 5
"""Of what a version doesn't get, in the app's log."""


class Handover:
    """From the app that `stage` shows, if any, to its next version."""

    def __init__(self, stage: Stage, site: Site, *, add_log: Callable[[str], None]) -> None:
        """`add_log` is for lines that the app's user reads."""
        self._stage = stage
        self._site = site
        self._add_log = add_log
        app = stage.app
        self._data = AppData(app.slot.folder, app.sources) if app is not None else None
        self._packed: bytes | None = None  # the bundle of the version that has the copies

    @property
    def replaces_app(self) -> bool:
        """Whether an app is shown already."""
        return self._data is not None

    async def note_bundle(self, folder: str) -> None:
        """Note what the app was delivered with: `folder` has its bundle, as it is so far.

        Raises AssignmentFailed.
        """
        if self._data is not None:
            with _copying():
                await in_thread(self._data.note_bundle, folder)

    async def check_room(self) -> None:
        """Raises AssignmentFailed if the data wouldn't fit a second time, or can't be read."""
        if self._data is not None:
            with _copying():
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
            async with self._site.quiet(write_limit_s=TRIED_WRITE_LIMIT_S):
                await in_thread(self._data.update)

    async def finish(self, app: App) -> None:
        """Show `app`, which was tried and runs. Raises AssignmentFailed; then it runs no more."""
        data, packed = self._data, self._packed
        try:
            if data is None or packed is None:  # a version of old starts without data
                self._stage.show(app)
            elif not await self._show_if_current(app, data):
                await self._show_with_new_copy(app, data, packed)
            if data is not None and packed is not None:
                self._tell_left_out(data)
        finally:
            if self._stage.app is not app:
                await app.stop()

    async def _show_if_current(self, app: App, data: AppData) -> bool:
        """Show it unless the app before has written since the try."""
        if await in_thread(data.has_changed):
            return False
        async with self._site.quiet(write_limit_s=WRITE_LIMIT_S):
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
            raise _not_copied(error, app.failure) from error
        loop = asyncio.get_running_loop()
        async with self._site.quiet(write_limit_s=WRITE_LIMIT_S):
            began_at_s = loop.time()
            try:
                await in_thread(data.update)
            except OSError as error:
                raise _not_copied(error, app.failure) from error
            problem = await app.start()
            if problem:
                message = f"The app {problem}, when it was started with its users' latest data."
                raise app.failure(FailureCode.APP_NOT_READY, message)
            self._stage.show(app)
        log("data_handed_over", held_ms=round((loop.time() - began_at_s) * 1000))

    def _tell_left_out(self, data: AppData) -> None:
        left_out = sorted(data.left_out.items())
        if not left_out:
            return
        names = [f"{shown(path)} ({reason})" for path, reason in left_out[:NAMED_MAX]]
        if len(left_out) > NAMED_MAX:
            names.append(f"{len(left_out) - NAMED_MAX} more")
        self._add_log(f"[agent] not taken over from the version before: {', '.join(names)}")


@contextlib.contextmanager
def _room_needed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise no_room() from error
        raise


@contextlib.contextmanager
def _copying() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _not_copied(error, AssignmentFailed) from error


def _not_copied(
    error: Exception, failure: Callable[[FailureCode, str], AssignmentFailed]
) -> AssignmentFailed:
    if is_full(error):
        return no_room()
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    message = f"The data of the version before can't be copied: {reason}."
    return failure(FailureCode.APP_NOT_READY, message)
