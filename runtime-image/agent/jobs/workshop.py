"""What the generator may ask of the agent: start the app, look at it, run a command.

Used by `generation.py`, which passes the questions on. The generator only writes files, in a work
folder in which no app runs. Each start packs that folder and unpacks the pack into the app's slot,
so that what was tried is to the byte what is kept and shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.apps import probe
from agent.apps.app import App, environment
from agent.apps.commands import run_command
from agent.bundles import archive
from agent.bundles.belongings import carry_over
from agent.layout import WORK_FOLDER
from agent.limits import Limits
from agent.serving.site import Slot
from agent.threads import in_thread

MAX_PATHS = 60
ANY_STATUS = 600
"""An app that answers 500 has started: the answer says more than a timeout would."""


class Workshop:
    """One app in the making: at any time at most one process of it, in `slot`."""

    def __init__(
        self,
        slot: Slot,
        *,
        limits: Limits,
        start_timeout_s: float,
        add_log: Callable[[str], None],
        present: App | None = None,
        folder: str = WORK_FOLDER,
    ) -> None:
        """`present` is the app that is being changed: what it made at run time comes along."""
        self.folder = folder
        self.app: App | None = None
        self._slot = slot
        self._limits = limits
        self._start_timeout_s = start_timeout_s
        self._add_log = add_log
        self._present = present
        self.packed = b""  # what `app` was started from

    async def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Do what the generator asks for; the answer is JSON."""
        if question.get("ask") == "start":
            return await self._start()
        if question.get("ask") == "get":
            return await self._get(question["paths"], int(question["max_bytes"]))
        if question.get("ask") == "run":
            return await self._run(question["command"], float(question["limit_s"]))
        return {"error": "unknown question"}

    async def close(self) -> None:
        """Stop what runs, unless `release` gave it away."""
        if self.app is not None:
            await self.app.stop()

    def release(self) -> App | None:
        """Hand over the app: from now on somebody else stops it."""
        app, self.app = self.app, None
        return app

    async def _start(self) -> dict[str, Any]:
        await self.close()
        self.app = None
        try:
            packed = await in_thread(archive.pack, self.folder)
            manifest = await in_thread(archive.unpack, packed, self._slot.folder)
        except archive.BundleInvalid as error:
            return {"invalid": str(error)}
        self.packed = packed
        self.app = App(
            manifest,
            self._slot,
            add_log=self._add_log,
            start_timeout_s=self._start_timeout_s,
            good_below=ANY_STATUS,
        )
        problem = await self._bring_belongings() or await self.app.start()
        return {"problem": problem, "console": self.app.console}

    async def _bring_belongings(self) -> str:
        if self._present is None:
            return ""
        here, there = self._present.slot.folder, self._slot.folder
        try:
            await in_thread(carry_over, here, self._present.sources, there)
        except OSError as error:
            return f"can't have the data of the version before: {error.strerror}"
        return ""

    async def _get(self, paths: list[str], max_bytes: int) -> dict[str, Any]:
        app = self.app
        if app is None:
            return {"ended": "was not started", "console": "", "pages": []}
        pages = [await probe.get(app, path, max_bytes=max_bytes) for path in paths[:MAX_PATHS]]
        # Turn by turn: half a CPU answers no sooner when it is asked for everything at once.
        if any(page.problem or page.status >= 500 for page in pages):
            await app.finish_talking()
        return {
            "ended": app.ended,
            "console": app.console,
            "pages": [
                {
                    "path": page.path,
                    "status": page.status,
                    "headers": dict(page.headers),
                    "body": page.body.decode("utf-8", "replace"),
                    "problem": page.problem,
                }
                for page in pages
            ],
        }

    async def _run(self, command: list[str], limit_s: float) -> dict[str, Any]:
        ran = await run_command(
            command,
            folder=self.folder,
            environment=environment(self._slot.port),
            limit_s=min(limit_s, self._limits.run_seconds),
        )
        return {"ended": ran.ended, "status": ran.status, "output": ran.output}
