"""Does what the generator asks of the agent: start the app, request its pages, run a command.

`generation.py` passes the questions on. The generator only writes files, into a work folder in
which no app runs. Each start packs that folder and unpacks the bundle into the app's slot. So the
tested app is byte for byte the one that is kept and shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from agent.apps import probe
from agent.apps.app import App, environment
from agent.apps.commands import run_command
from agent.apps.interpreters import Interpreters
from agent.apps.probe import Page
from agent.jobs.handover import Handover
from agent.jobs.messages import Get, Open, Question, Run
from agent.jobs.trials import PublicAddress
from agent.layout import WORK_FOLDER
from agent.serving.site import Slot
from agent.threads import in_thread
from orchestrator.contract import archive
from orchestrator.contract.bundles import BundleInvalid
from orchestrator.contract.health import PATIENCE_S, Answer
from orchestrator.contract.wire import Limits

ANSWER_MAX_BYTES = 2 * 1024 * 1024
"""Of all bodies in one answer. As JSON a byte that is no text takes six."""
PATIENCE_LEAST_S = 1.0
"""With one page, after so much time was lost with others that didn't answer or didn't end."""


class Workshop:
    """One app that is being made. At most one process of it runs, in `slot`."""

    def __init__(
        self,
        slot: Slot,
        *,
        limits: Limits,
        start_timeout_s: float,
        add_log: Callable[[str], None],
        public_address: PublicAddress,
        handover: Handover | None = None,
        interpreters: Interpreters | None = None,
        folder: str = WORK_FOLDER,
    ) -> None:
        """`handover` is from the app that is being changed."""
        self.folder = folder
        self.app: App | None = None
        self._slot = slot
        self._limits = limits
        self._start_timeout_s = start_timeout_s
        self._add_log = add_log
        self._public_address = public_address
        self._handover = handover
        self._interpreters = interpreters
        self.packed = b""  # the bundle that `app` was started from

    async def answer(self, question: Question) -> dict[str, Any]:
        """Do what the question asks for; return the answer as JSON."""
        if isinstance(question, Get):
            return await self._get(question)
        if isinstance(question, Run):
            return await self._run(question)
        if isinstance(question, Open):
            return await self._open()
        return await self._start()

    async def close(self) -> None:
        """Stop the app, unless `release` gave it away."""
        if self.app is not None:
            await self.app.stop()

    def release(self) -> App | None:
        """Hand over the app. From now on the caller has to stop it."""
        app, self.app = self.app, None
        return app

    async def _start(self) -> dict[str, Any]:
        await self.close()
        self.app = None
        try:
            packed = await in_thread(archive.pack, self.folder)
            manifest = await in_thread(archive.unpack, packed, self._slot.folder)
        except BundleInvalid as error:
            return {"invalid": str(error)}
        self.packed = packed
        self.app = App(
            manifest,
            self._slot,
            add_log=self._add_log,
            start_timeout_s=self._start_timeout_s,
            interpreters=self._interpreters,
        )
        problem = await self._copy_data(self.app, packed) or await self.app.start(judge=_take_any)
        return {"problem": problem, "console": self.app.console}

    async def _copy_data(self, app: App, packed: bytes) -> str:
        """Return what went wrong, for `the app ...`, or "". Raises AssignmentFailed(NO_ROOM)."""
        if self._handover is None:
            return ""
        try:
            await self._handover.copy_data(app, packed)
        except OSError as error:
            return f"can't get the data of the version before: {error.strerror}"
        return ""

    async def _get(self, question: Get) -> dict[str, Any]:
        app = self.app
        if app is None:
            return {"ended": "was not started", "console": "", "pages": []}
        left = ANSWER_MAX_BYTES
        pages = []
        patience_s = PATIENCE_S
        loop = asyncio.get_running_loop()
        # One after the other: with half a CPU, all at once would be no faster.
        for path in question.paths:
            room = min(question.max_bytes, left)
            began_at_s = loop.time()
            page = await probe.get(
                app,
                path,
                max_bytes=room,
                navigates=question.navigates,
                cookie=question.cookie,
                limit_s=patience_s,
            )
            if page.problem or page.is_endless:
                lost_s = loop.time() - began_at_s
                patience_s = max(PATIENCE_LEAST_S, patience_s - lost_s)
            left -= len(page.body)
            pages.append(page)
        if any(page.problem or page.status >= 500 for page in pages):
            await app.wait_until_quiet()
        return {
            "ended": app.ended,
            "console": app.console,
            "pages": [page_json(page) for page in pages],
        }

    async def _open(self) -> dict[str, Any]:
        app = self.app
        if app is None:
            return {"problem": "The app was not started.", "console": ""}
        verdict = await self._public_address.open(app)
        # What nobody could open is kept all the same: it was checked here, and is paid.
        problem = verdict.problem if verdict.is_known else ""
        if problem:
            await app.wait_until_quiet()
        return {"problem": problem, "console": app.console}

    async def _run(self, question: Run) -> dict[str, Any]:
        result = await run_command(
            question.command,
            folder=self.folder,
            environment=environment(self._slot.port),
            limit_s=min(question.limit_s, self._limits.run_seconds),
        )
        return {"ended": result.ended, "status": result.status, "output": result.output}


def _take_any(_: Answer) -> str:
    """An app that answers 500 counts as started: its answer says more than a timeout."""
    return ""


def _headers(page: Page) -> dict[str, str]:
    """By their names; all challenges in one, since an app may offer several ways to log in."""
    headers = dict(page.headers)
    challenges = [value for name, value in page.headers if name == "www-authenticate"]
    return headers | ({"www-authenticate": ", ".join(challenges)} if challenges else {})


def page_json(page: Page) -> dict[str, Any]:
    """The page as the generator is told of it."""
    return {
        "path": page.path,
        "status": page.status,
        "headers": _headers(page),
        "cookies": [value for name, value in page.headers if name == "set-cookie"],
        "body": page.body.decode("utf-8", "replace"),
        "is_whole": page.is_whole,
        "is_endless": page.is_endless,
        "unreadable": page.unreadable,
        "problem": page.problem,
    }
