"""One version of the app in its slot: starts it, waits until it answers, keeps it running.

`job.py` and `workshop.py` create it; `stage.py` keeps it running.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

from agent.apps import listeners, processes
from agent.apps.child import Child, Fence, describe_exit
from agent.apps.interpreters import Interpreters
from agent.apps.loglines import Console
from agent.failures import AssignmentFailed
from agent.layout import APP_PATH
from agent.serving.site import Serving, Site, Slot
from agent.serving.static_files import Folder
from agent.serving.upstream import connect
from orchestrator.contract import health
from orchestrator.contract.crashes import CrashHistory
from orchestrator.contract.health import BROWSER_HEADERS, Answer
from orchestrator.contract.manifest import AppKind, Manifest
from orchestrator.contract.trees import Facts, facts_of, walk_files
from orchestrator.contract.wire import LOG_LINE_MAX_CHARS, FailureCode

PROBE_PAUSES_S = (0.003, 0.025)
"""Least and most between two looks whether it answers: an eighth of the time that it has taken."""
CENSUS_INTERVAL_S = 2.0
PROCESSES_MAX = 200
"""Of the whole sandbox. Below the container's limit, at which we couldn't start any either."""
APP_HOST = "127.0.0.1"
HEAD_LINES_MAX = 200
"""Of its first answer that are read."""
INTERIM = range(100, 200)
"""Statuses before that of the answer."""
QUIET_S = 0.1
QUIET_ROUNDS = 10


_FIRST_REQUEST = "\r\n".join(
    [
        "GET / HTTP/1.1",
        "Host: localhost",
        *(f"{name}: {value}" for name, value in BROWSER_HEADERS),
        "Connection: close",
        "",
        "",
    ]
).encode()


class App:
    """Owns the app's process. Others decide whether the front shows it."""

    def __init__(
        self,
        manifest: Manifest,
        slot: Slot,
        *,
        add_log: Callable[[str], None],
        start_timeout_s: float,
        interpreters: Interpreters | None = None,
    ) -> None:
        """Create it when the slot's folder holds the app's source and nothing else yet."""
        self.slot = slot
        self.manifest = manifest
        self._add_log = add_log
        self._start_timeout_s = start_timeout_s
        self._interpreters = interpreters
        self._console = Console()
        self.sources: Mapping[str, Facts] = {}
        self.note_sources()
        self._has_output = True  # since the last look of `wait_until_quiet`
        self._child: Child | None = None

    def note_sources(self) -> None:
        """Take what the slot holds now for the app's source.

        Later files come from the app itself, and so does what it writes into these.
        """
        self.sources = {path: facts_of(info) for path, info in walk_files(self.slot.folder)}

    @property
    def static(self) -> bool:
        return self.manifest.kind is AppKind.STATIC

    @property
    def serving(self) -> Serving:
        """How the front answers requests while it shows this app."""
        return Serving.FILES if self.static else Serving.PROCESS

    @property
    def files(self) -> Folder:
        """What a static app shows.

        Other files in the slot are data of the version before, which are nobody's to download.
        """
        return Folder(root=self.slot.folder, files=self.sources, spa=self.manifest.spa)

    @property
    def console(self) -> str:
        """The end of its output, at most LOG_LINE_MAX_CHARS characters."""
        return self._console.text

    @property
    def ended(self) -> str:
        """How its process ended, for `the app ...`; empty while it runs."""
        if self.static:
            return ""
        if self._child is None:
            return "is not running"
        exited = self._child.exited
        return describe_exit(exited.result()) if exited.done() else ""

    async def start(self, *, judge: Callable[[Answer], str] = health.first_problem) -> str:
        """Start it and wait until `judge` finds no problem in its answer to `GET /`.

        Return what went wrong, for `the app ...`, or "".
        """
        if self.static:
            return ""
        try:
            self._child = self._launch(self.manifest.command(host=APP_HOST, port=self.slot.port))
        except OSError as error:
            return f"can't be started: {error.strerror}"
        problem = await self._wait_until_answering(self._child, judge)
        if problem:
            await self.stop()
        return problem

    async def keep_running(self, site: Site, *, processes_max: int = PROCESSES_MAX) -> None:
        """Restart the app whenever it crashes. Returns at once for a static app.

        Raises AssignmentFailed(APP_CRASHED) when it has crashed too often.
        """
        crashes = CrashHistory()
        while self._child is not None:
            problem = await self._wait_until_ended(self._child, processes_max)
            while problem:
                site.show(Serving.STARTING, self.slot)
                await self.stop()
                delay_s = crashes.restart_delay_s(asyncio.get_running_loop().time())
                if delay_s is None:
                    message = f"The app keeps crashing; the last time it {problem}."
                    raise self.failure(FailureCode.APP_CRASHED, message)
                self._add_log(f"[agent] the app {problem}; starting it again in {delay_s:g} s")
                await asyncio.sleep(delay_s)
                problem = await self.start(judge=health.restart_problem)
            site.show(self.serving, self.slot)

    async def wait_until_quiet(self) -> None:
        """Wait until its output pauses: the traceback often follows the answer 500."""
        for _ in range(QUIET_ROUNDS):
            had_output, self._has_output = self._has_output, False
            await asyncio.sleep(QUIET_S)
            if not had_output and not self._has_output:
                return

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop()
            self._child = None  # only now: if this is cancelled, the next `stop` tries again

    def failure(self, code: FailureCode, message: str) -> AssignmentFailed:
        """A failure whose message ends with the app's last lines."""
        room = LOG_LINE_MAX_CHARS - len(message) - 1
        return AssignmentFailed(code, f"{message}\n{self.console[-room:]}".rstrip())

    def _launch(self, command: Sequence[str]) -> Child:
        """The process of the app: an interpreter that waits for it, or a new one."""
        if self._interpreters is not None:
            child = self._interpreters.take(command, self.slot, self._on_line)
            if child is not None:
                return child
        return Child(
            command,
            folder=self.slot.folder,
            environment=environment(self.slot.port),
            on_line=self._on_line,
            fence=Fence(),
        )

    async def _wait_until_answering(self, child: Child, judge: Callable[[Answer], str]) -> str:
        problem = ""
        loop = asyncio.get_running_loop()
        began_at_s = loop.time()
        least_s, most_s = PROBE_PAUSES_S
        try:
            async with asyncio.timeout(self._start_timeout_s):
                while not child.exited.done():
                    answer = await first_answer(self.slot.port)
                    problem = problem if answer is None else judge(answer)
                    if answer is not None and not problem:
                        return ""
                    pause_s = min(most_s, max(least_s, (loop.time() - began_at_s) / 8))
                    await asyncio.wait({child.exited}, timeout=pause_s)
        except TimeoutError:
            if problem:
                return f"isn't well {self._start_timeout_s:g} s after its start: {problem}"
            instead = listeners.describe(listeners.addresses_of(child.pids()), self.slot.port)
            limit_s = self._start_timeout_s
            return f"gave no answer on {APP_HOST}:$PORT within {limit_s:g} s: {instead}"
        return f"{describe_exit(child.exited.result())} before it answered"

    async def _wait_until_ended(self, child: Child, processes_max: int) -> str:
        while True:
            await asyncio.wait({child.exited}, timeout=CENSUS_INTERVAL_S)
            if child.exited.done():
                return describe_exit(child.exited.result())
            if processes.reap_adopted(Child.leaders) > processes_max:
                return f"started more than {processes_max} processes"

    def _on_line(self, line: str) -> None:
        self._has_output = True
        self._console.add(line)
        self._add_log(line)


def environment(port: int) -> dict[str, str]:
    """All environment variables of an app."""
    return {
        "PATH": APP_PATH,
        "HOME": "/tmp",  # noqa: S108  # the sandbox's own tmpfs, nobody else uses it
        "LANG": "C.UTF-8",
        "PORT": str(port),
        "HOST": APP_HOST,
        "PYTHONUNBUFFERED": "1",
        "NODE_ENV": "production",
    }


async def first_answer(port: int) -> Answer | None:
    """The head of the answer to `GET /`; None if there is none. Waits as long as the app takes."""
    try:
        reader, writer = await connect(port)
    except OSError:
        return None
    try:
        writer.write(_FIRST_REQUEST)
        status = INTERIM.start
        while status in INTERIM:
            words = (await reader.readline()).split(maxsplit=2)
            if len(words) < 2 or not words[0].startswith(b"HTTP/"):
                return None
            status = int(words[1])
            headers = await _read_headers(reader)
        return Answer(
            status=status,
            location=headers.get("location"),
            challenge=headers.get("www-authenticate", ""),
            is_empty=headers.get("content-length") == "0",
        )
    except (OSError, ValueError):
        return None
    finally:
        writer.close()


async def _read_headers(reader: asyncio.StreamReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    with contextlib.suppress(ValueError):  # a longer line than the reader takes
        for _ in range(HEAD_LINES_MAX):
            name, colon, value = (await reader.readline()).decode("latin-1").partition(":")
            if not colon:
                break
            before = headers.get(name.lower(), "") if name.lower() == "www-authenticate" else ""
            headers[name.lower()] = f"{before}, {value.strip()}" if before else value.strip()
    return headers
