"""One assignment from its bundle or prompt to a running app. Called by `runner.py`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from agent import bundle, generation
from agent.app import App
from agent.home import HomeClient
from agent.layout import MAX_PACKED_BYTES
from agent.manifest import Manifest
from agent.protocol import Assignment, AssignmentFailed, BundleRef, FailureCode, Kind, Phase
from agent.reports import ReportSender
from agent.site import Serving, Site

P = ParamSpec("P")
T = TypeVar("T")
FETCH_LIMIT_S = 60.0
"""Home may restart meanwhile, which takes seconds."""


class Job:
    """Carries out one assignment; says how it goes through `reports`."""

    def __init__(
        self, assignment: Assignment, *, home: HomeClient, site: Site, reports: ReportSender
    ) -> None:
        self._assignment = assignment
        self._home = home
        self._site = site
        self._reports = reports

    async def run(self) -> None:
        """Returns when nothing is left to watch over (a static app); raises AssignmentFailed."""
        self._site.answer_to(self._assignment.slug)
        self._site.serving = Serving.STARTING
        manifest, packed = await self._source()
        app = App(
            manifest,
            site=self._site,
            logs=self._reports.logs,
            add_log=self._reports.add_log,
            start_timeout_s=self._assignment.start_timeout_s,
        )
        try:
            await app.start()
            if packed is not None:
                await self._upload(packed)
            self._reports.push(Phase.READY, 100, "the app is running")
            await app.keep_running()
        finally:
            await app.stop()

    async def _source(self) -> tuple[Manifest, bytes | None]:
        """Fill the app's folder; the second value is what home doesn't have yet."""
        existing = self._assignment.bundle
        if self._assignment.kind is Kind.GENERATE:
            return await self._generate(existing)
        if existing is None:
            raise AssignmentFailed(FailureCode.BUNDLE_INVALID, "the assignment names no bundle")
        self._reports.push(Phase.DEPLOYING, 90, "starting the app")
        return await self._fetch(existing), None

    async def _generate(self, existing: BundleRef | None) -> tuple[Manifest, bytes]:
        self._reports.push(Phase.GENERATING, 31, "asking the model")
        if existing is not None:
            await self._fetch(existing)
        else:
            os.makedirs(self._site.folder, exist_ok=True)

        def on_progress(progress: int, message: str) -> None:
            self._reports.push(Phase.GENERATING, progress, message)

        await generation.generate(self._assignment, self._site.folder, on_progress)
        self._reports.push(Phase.DEPLOYING, 90, "starting the app")
        # Packed before the app runs: what it writes at run time is no part of a version.
        try:
            packed = await _in_thread(bundle.pack, self._site.folder)
            return await _in_thread(bundle.unpack, packed, self._site.folder), packed
        except bundle.BundleInvalid as error:
            raise AssignmentFailed(FailureCode.BUNDLE_INVALID, str(error)) from error

    async def _fetch(self, expected: BundleRef) -> Manifest:
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
            return await _in_thread(
                _verify_and_unpack, response.body, expected.sha256, self._site.folder
            )
        except bundle.BundleInvalid as error:
            raise AssignmentFailed(FailureCode.BUNDLE_INVALID, str(error)) from error

    async def _upload(self, packed: bytes) -> None:
        response = await self._home.request_until_answered(
            "PUT",
            "/agent/bundle",
            token=self._assignment.session_token,
            body=packed,
            headers=[
                ("Content-Type", "application/gzip"),
                ("X-Spawn-Sha256", bundle.sha256_hex(packed)),
            ],
        )
        if response.status not in (200, 201):
            message = f"home refused the generated app with status {response.status}"
            raise AssignmentFailed(FailureCode.BUNDLE_INVALID, message)


def _verify_and_unpack(packed: bytes, sha256: str, folder: str) -> Manifest:
    actual = bundle.sha256_hex(packed)
    if actual != sha256:
        message = f"the bundle has sha256 {actual}, the assignment says {sha256}"
        raise AssignmentFailed(FailureCode.BUNDLE_FETCH_FAILED, message)
    return bundle.unpack(packed, folder)


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` beside the loop. When cancelled, wait for it first: threads can't be stopped, and
    the next assignment uses the same folder.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
