"""Carries out one assignment: from its bundle or request to a started app. For `runner.py`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from agent.apps.app import App
from agent.apps.interpreters import Interpreters
from agent.failures import AssignmentFailed, is_full, no_room
from agent.home.client import HomeClient
from agent.home.reports import ReportSender
from agent.jobs import generation
from agent.jobs.handover import Handover
from agent.jobs.trials import UNREACHED_LIMIT_S, PublicAddress, Verdict
from agent.jobs.workshop import Workshop
from agent.serving.site import Site, Slot
from agent.threads import in_thread
from orchestrator.contract import archive
from orchestrator.contract.bundles import PACKED_MAX_BYTES, BundleInvalid
from orchestrator.contract.manifest import Manifest
from orchestrator.contract.trees import remove_tree
from orchestrator.contract.wire import Assignment, BundleRef, FailureCode, Kind, Phase

FETCH_LIMIT_S = 60.0
"""Long enough for a restart of home, which takes seconds."""
UNHEALTHY_UPLOAD_LIMIT_S = 20.0
KEPT_FAILURES = frozenset(
    {
        FailureCode.APP_NOT_HEALTHY,
        FailureCode.NO_ROOM,
        FailureCode.GENERATION_FAILED,
        FailureCode.BUDGET_EXHAUSTED,
    }
)
"""After these failures the user may still want the files written so far."""


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """An app that has started, and whose source home has."""

    app: App
    summary: str | None  # what the model says that it did; None if no model was called


class Job:
    """Carries out one assignment, and reports its progress to `reports`."""

    def __init__(
        self,
        assignment: Assignment,
        *,
        home: HomeClient,
        reports: ReportSender,
        site: Site,
        add_log: Callable[[str], None],
        interpreters: Interpreters | None = None,
        unreached_limit_s: float = UNREACHED_LIMIT_S,
    ) -> None:
        """`unreached_limit_s`: see PublicAddress."""
        self._assignment = assignment
        self._home = home
        self._reports = reports
        self._public_address = PublicAddress(
            home, site, assignment.session_token, unreached_limit_s=unreached_limit_s
        )
        self._add_log = add_log
        self._interpreters = interpreters

    async def carry_out(self, slot: Slot, handover: Handover) -> JobResult:
        """Start the app in `slot`, beside the one that serves.

        Raises AssignmentFailed; nothing of the new app runs then.
        """
        if self._assignment.kind is Kind.BUNDLE:
            app = await self.start_bundle(slot)
            if handover.replaces_app:
                await self._try_at_public_address(app)
            return JobResult(app=app, summary=None)
        workshop = Workshop(
            slot,
            limits=self._assignment.limits,
            start_timeout_s=self._assignment.start_timeout_s,
            add_log=self._add_log,
            public_address=self._public_address,
            handover=handover,
            interpreters=self._interpreters,
        )
        await handover.check_room()  # before the model is paid
        try:
            return await self._generate(workshop, handover)
        finally:
            await workshop.close()
            await in_thread(remove_tree, workshop.folder)

    async def start_bundle(self, slot: Slot) -> App:
        """Start the assignment's bundle as it is. Raises AssignmentFailed."""
        self._reports.report(Phase.DEPLOYING, 90, "starting the app")
        app = App(
            await self._fetch(slot.folder),
            slot,
            add_log=self._add_log,
            start_timeout_s=self._assignment.start_timeout_s,
            interpreters=self._interpreters,
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

    async def _try_at_public_address(self, app: App) -> None:
        """Raises AssignmentFailed unless visitors would find it well; it runs no more then.

        An earlier version is lost by no delay, so it isn't shown before it was seen there.
        """
        verdict = Verdict(problem="It was stopped.")
        try:
            verdict = await self._public_address.open(app)
        finally:
            if verdict.problem:
                await app.stop()
        if verdict.problem and verdict.is_known:
            message = f"At its public address, the app isn't well: {verdict.problem}"
            raise app.failure(FailureCode.APP_NOT_HEALTHY, message)
        if verdict.problem:
            message = f"The version could not be opened at its public address: {verdict.problem}"
            raise app.failure(FailureCode.APP_NOT_READY, message)

    async def _generate(self, workshop: Workshop, handover: Handover) -> JobResult:
        self._reports.report(Phase.GENERATING, 31, "asking the model")
        if self._assignment.bundle is not None:
            await self._fetch(workshop.folder)
            await handover.note_bundle(workshop.folder)
        else:
            _make_folder(workshop.folder)

        def on_progress(progress: int, message: str) -> None:
            self._reports.report(Phase.GENERATING, progress, message)

        try:
            summary = await generation.generate(self._assignment, workshop, on_progress)
        except AssignmentFailed as failure:
            if failure.code in KEPT_FAILURES:
                await self._keep_unhealthy(workshop.folder)
            raise
        self._reports.report(Phase.DEPLOYING, 90, "keeping the source")
        await self._upload(workshop.packed)
        app = workshop.release()
        if app is None:
            raise AssignmentFailed(FailureCode.GENERATION_FAILED, "no app was started")
        return JobResult(app=app, summary=summary)

    async def _fetch(self, folder: str) -> Manifest:
        bundle = self._assignment.bundle
        if bundle is None:
            raise AssignmentFailed(FailureCode.BUNDLE_INVALID, "the assignment names no bundle")
        packed = bundle.packed if bundle.packed is not None else await self._request_bundle()
        try:
            return await in_thread(_verify_and_unpack, packed, bundle, folder)
        except BundleInvalid as error:
            raise AssignmentFailed(FailureCode.BUNDLE_INVALID, str(error)) from error

    async def _request_bundle(self) -> bytes:
        try:
            async with asyncio.timeout(FETCH_LIMIT_S):
                response = await self._home.request_until_answered(
                    "GET",
                    "/agent/bundle",
                    token=self._assignment.session_token,
                    max_body_bytes=PACKED_MAX_BYTES,
                )
        except TimeoutError as error:
            message = f"home gave no bundle within {FETCH_LIMIT_S:g} s"
            raise AssignmentFailed(FailureCode.BUNDLE_FETCH_FAILED, message) from error
        if response.status != 200:
            message = f"home answered {response.status} to the request for the bundle"
            raise AssignmentFailed(FailureCode.BUNDLE_FETCH_FAILED, message)
        return response.body

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
        """Upload it for the user alone; nobody starts it. Ignore what goes wrong with that."""
        with contextlib.suppress(BundleInvalid, AssignmentFailed, TimeoutError):
            packed = await in_thread(archive.pack, folder)
            async with asyncio.timeout(UNHEALTHY_UPLOAD_LIMIT_S):
                await self._upload(packed, healthy=False)


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        if is_full(error):  # by the serving app
            raise no_room() from error
        message = f"there is no room for another version: {error.strerror}"
        raise AssignmentFailed(FailureCode.GENERATION_FAILED, message) from error


def _verify_and_unpack(packed: bytes, bundle: BundleRef, folder: str) -> Manifest:
    sha256 = archive.sha256_hex(packed)
    if sha256 != bundle.sha256:
        message = f"the bundle has sha256 {sha256}, the assignment says {bundle.sha256}"
        raise AssignmentFailed(FailureCode.BUNDLE_FETCH_FAILED, message)
    return archive.unpack(packed, folder)
