"""The app of an assignment: starts it, waits until it answers, keeps it running.

Called by `job.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.child import Child, describe_exit
from agent.crashes import CrashHistory
from agent.layout import APP_PATH, MAX_LINE_CHARS
from agent.loglines import LogBuffer
from agent.manifest import AppKind, Manifest
from agent.protocol import AssignmentFailed, FailureCode
from agent.site import Serving, Site

PROBE_INTERVAL_S = 0.025
APP_HOST = "127.0.0.1"


class App:
    """Owns the app's process and says in `site` what the front may show."""

    def __init__(
        self,
        manifest: Manifest,
        *,
        site: Site,
        logs: LogBuffer,
        add_log: Callable[[str], None],
        start_timeout_s: float,
    ) -> None:
        self._manifest = manifest
        self._site = site
        self._logs = logs
        self._add_log = add_log
        self._start_timeout_s = start_timeout_s
        self._child: Child | None = None

    async def start(self) -> None:
        """Return when the app answers. Raises AssignmentFailed(APP_NOT_READY)."""
        if self._manifest.kind is AppKind.STATIC:
            self._site.serving = Serving.FILES
            return
        problem = await self._start_process()
        if problem:
            raise self._failed(FailureCode.APP_NOT_READY, f"The app {problem}.")

    async def keep_running(self) -> None:
        """Restart the app when it crashes. Returns at once for static apps.

        Raises AssignmentFailed(APP_CRASHED) when restarting is of no use.
        """
        crashes = CrashHistory()
        while self._child is not None:
            problem = describe_exit(await asyncio.shield(self._child.exited))
            while problem:
                self._site.serving = Serving.STARTING
                await self.stop()
                delay_s = crashes.restart_delay_s(asyncio.get_running_loop().time())
                if delay_s is None:
                    message = f"The app keeps crashing; the last time it {problem}."
                    raise self._failed(FailureCode.APP_CRASHED, message)
                self._add_log(f"[agent] the app {problem}; starting it again in {delay_s:g} s")
                await asyncio.sleep(delay_s)
                problem = await self._start_process()

    async def stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.stop()

    async def _start_process(self) -> str:
        """Start and wait until it answers; otherwise say what went wrong, as in `the app ...`."""
        port = self._site.app_port
        try:
            self._child = Child(
                self._manifest.command(host=APP_HOST, port=port),
                folder=self._site.folder,
                environment=environment(port),
                on_line=self._add_log,
            )
        except OSError as error:
            return f"can't be started: {error.strerror}"
        problem = await self._until_answering(self._child, port)
        if problem:
            await self.stop()
        else:
            self._site.serving = Serving.PROCESS
        return problem

    async def _until_answering(self, child: Child, port: int) -> str:
        try:
            async with asyncio.timeout(self._start_timeout_s):
                while not child.exited.done():
                    if await answers(port):
                        return ""
                    await asyncio.wait({child.exited}, timeout=PROBE_INTERVAL_S)
        except TimeoutError:
            return f"gave no answer on 127.0.0.1:$PORT within {self._start_timeout_s:g} s"
        return f"{describe_exit(child.exited.result())} before it answered"

    def _failed(self, code: FailureCode, message: str) -> AssignmentFailed:
        tail = self._logs.tail()
        room = MAX_LINE_CHARS - len(message) - 1
        return AssignmentFailed(code, f"{message}\n{tail[-room:]}" if tail else message)


def environment(port: int) -> dict[str, str]:
    """All that an app finds in its environment."""
    return {
        "PATH": APP_PATH,
        "HOME": "/tmp",  # noqa: S108  # the sandbox's own tmpfs, nobody else is in there
        "LANG": "C.UTF-8",
        "PORT": str(port),
        "HOST": APP_HOST,
        "PYTHONUNBUFFERED": "1",
        "NODE_ENV": "production",
    }


async def answers(port: int) -> bool:
    """Whether `GET /` has a status below 500. Waits as long as the app thinks about it."""
    try:
        reader, writer = await asyncio.open_connection(APP_HOST, port)
    except OSError:
        return False
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        words = (await reader.readline()).split(maxsplit=2)
        return len(words) >= 2 and words[0].startswith(b"HTTP/") and words[1] < b"500"
    except (OSError, ValueError):
        return False
    finally:
        writer.close()
