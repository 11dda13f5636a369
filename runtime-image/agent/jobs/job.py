"""One assignment from its bundle or wish to an app that has started. Called by `runner.py`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from agent.apps.app import App
from agent.bundles import archive
from agent.bundles.manifest import Manifest
from agent.home.client import HomeClient
from agent.home.reports import ReportSender
from agent.jobs import generation
from agent.jobs.workshop import Workshop
from agent.layout import MAX_PACKED_BYTES
from agent.protocol import Assignment, AssignmentFailed, BundleRef, FailureCode, Kind, Phase
from agent.serving.site import Slot
from agent.threads import in_thread

FETCH_LIMIT_S = 60.0
"""Home may restart meanwhile, which takes seconds."""
UNHEALTHY_UPLOAD_LIMIT_S = 20.0
KEPT_FAILURES = frozenset(
    {FailureCode.APP_NOT_HEALTHY, FailureCode.GENERATION_FAILED, FailureCode.BUDGET_EXHAUSTED}
)
"""After these the user may still want what was written so far."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """An app that has started and that home has the source of."""

    app: App
    summary: str | None  # what the model says that it did


class Job:
    """Carries out one assignment; says how it goes through `reports`."""

    def __init__(
        self,
        assignment: Assignment,
        *,
        home: HomeClient,
        reports: ReportSender,
        add_log: Callable[[str], None],
    ) -> None:
        self._assignment = assignment
        self._home = home
        self._reports = reports
        self._add_log = add_log

    async def make(self, slot: Slot, present: App | None) -> Made:
        """The app, beside the one that serves at present. Raises AssignmentFailed, and leaves
        nothing of it running then.
        """
        if self._assignment.kind is Kind.BUNDLE:
            return Made(app=await self.start_bundle(slot), summary=None)
        workshop = Workshop(
            slot,
            limits=self._assignment.limits,
            start_timeout_s=self._assignment.start_timeout_s,
            add_log=self._add_log,
            present=present,
        )
        try:
            return await self._generate(workshop)
        finally:
            await workshop.close()
            await in_thread(shutil.rmtree, workshop.folder, ignore_errors=True)

    async def start_bundle(self, slot: Slot) -> App:
        """The assignment's bundle as it is. Raises AssignmentFailed."""
        self._reports.say(Phase.DEPLOYING, 90, "starting the app")
        app = App(
            await self._fetch(slot.folder),
            slot,
            add_log=self._add_log,
            start_timeout_s=self._assignment.start_timeout_s,
        )
        problem = "was stopped"
        try:
            problem = await app.start()
        finally:
            if problem:
                await app.stop()
        if problem:
            raise app.failure(FailureCode.APP_NOT_READY, f"The app {problem}.")
        return app

    async def _generate(self, workshop: Workshop) -> Made:
        self._reports.say(Phase.GENERATING, 31, "asking the model")
        if self._assignment.bundle is not None:
            await self._fetch(workshop.folder)
        else:
            _make_folder(workshop.folder)

        def on_progress(progress: int, message: str) -> None:
            self._reports.say(Phase.GENERATING, progress, message)

        try:
            summary = await generation.generate(self._assignment, workshop, on_progress)
        except AssignmentFailed as failure:
            if failure.code in KEPT_FAILURES:
                await self._keep_unhealthy(workshop.folder)
            raise
        self._reports.say(Phase.DEPLOYING, 90, "keeping the source")
        await self._upload(workshop.packed)
        app = workshop.release()
        if app is None:
            raise AssignmentFailed(FailureCode.GENERATION_FAILED, "no app was started")
        return Made(app=app, summary=summary)

    async def _fetch(self, folder: str) -> Manifest:
        expected = self._assignment.bundle
        if expected is None:
            raise AssignmentFailed(FailureCode.BUNDLE_INVALID, "the assignment names no bundle")
        try:
            async with asyncio.timeout(FETCH_LIMIT_S):
                response = await self._home.request_until_answered(
                    "GET",
                    "/agent/bundle",
                    token=self._assignment.session_token,
                    max_body_bytes=MAX_PACKED_BYTES,
                )
        except TimeoutError as error:
            message = f"home gave no bundle within {FETCH_LIMIT_S:g} s"
            raise AssignmentFailed(FailureCode.BUNDLE_FETCH_FAILED, message) from error
        if response.status != 200:
            message = f"home answered {response.status} to the request for the bundle"
            raise AssignmentFailed(FailureCode.BUNDLE_FETCH_FAILED, message)
        try:
            return await in_thread(_verify_and_unpack, response.body, expected, folder)
        except archive.BundleInvalid as error:
            raise AssignmentFailed(FailureCode.BUNDLE_INVALID, str(error)) from error

    async def _upload(self, packed: bytes, *, healthy: bool = True) -> None:
        response = await self._home.request_until_answered(
            "PUT",
            "/agent/bundle",
            token=self._assignment.session_token,
            body=packed,
            headers=[
                ("Content-Type", "application/gzip"),
                ("X-Spawn-Sha256", archive.sha256_hex(packed)),
                ("X-Spawn-Healthy", "1" if healthy else "0"),
            ],
        )
        if response.status not in (200, 201):
            message = f"home refused the generated app with status {response.status}"
            raise AssignmentFailed(FailureCode.BUNDLE_INVALID, message)

    async def _keep_unhealthy(self, folder: str) -> None:
        """For the user alone: nobody starts it again. What can't be kept is no second failure."""
        with contextlib.suppress(archive.BundleInvalid, AssignmentFailed, TimeoutError):
            packed = await in_thread(archive.pack, folder)
            async with asyncio.timeout(UNHEALTHY_UPLOAD_LIMIT_S):
                await self._upload(packed, healthy=False)


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:  # the app that serves has filled the sandbox
        message = f"there is no room for another version: {error.strerror}"
        raise AssignmentFailed(FailureCode.GENERATION_FAILED, message) from error


def _verify_and_unpack(packed: bytes, expected: BundleRef, folder: str) -> Manifest:
    actual = archive.sha256_hex(packed)
    if actual != expected.sha256:
        message = f"the bundle has sha256 {actual}, the assignment says {expected.sha256}"
        raise AssignmentFailed(FailureCode.BUNDLE_FETCH_FAILED, message)
    return archive.unpack(packed, folder)
