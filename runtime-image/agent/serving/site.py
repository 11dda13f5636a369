"""What this sandbox shows to the outside at the moment.

`stage.py` and `app.py` write it, `front.py` reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from agent.layout import APP_FOLDER, APP_PORT, BROWSER_LIBRARIES, NEXT_FOLDER, NEXT_PORT
from agent.serving.static_files import Folder
from orchestrator.contract.uploads import UPLOAD_MAX_BYTES


class Serving(StrEnum):
    """How the front answers requests."""

    NOTHING = "nothing"  # no assignment yet: 404
    STARTING = "starting"  # an assignment, but no app that answers: 503, the page reloads
    FILES = "files"  # a static app: the agent answers from the folder
    PROCESS = "process"  # a python or node app: requests go to its port
    STOPPED = "stopped"  # the app failed for good: 503


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place for one version of the app. There are two: one to serve, one to try the next."""

    folder: str
    port: int


SLOTS = (Slot(folder=APP_FOLDER, port=APP_PORT), Slot(folder=NEXT_FOLDER, port=NEXT_PORT))

HELD_MAX = 256
"""Requests that wait at once. Each keeps its head in memory, and a small body, or the first 128 KiB
of a larger one."""
HELD_LIMIT_S = 10.0
"""That one request waits: for a copy of a moment, and for the start of the next version."""
RELEASE_PAUSE_S = 0.005
"""Between requests that have waited: all at once could be more than an app has threads for."""
READ_LIMIT_S = 0.5
"""For the requests under way when a hold begins, if all they do is to read. Long polls take longer,
and can be asked again."""
SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""RFC 9110, section 9.2.1: their client doesn't ask for a change."""


class Visit:
    """A request that a slot's process is answering."""

    def __init__(self, slot: Slot, method: bytes, on_answer: Callable[[], None]) -> None:
        self.slot = slot
        self.may_write = method not in SAFE_METHODS
        self.is_answered = False
        self.is_late = False  # what it wrote may not be copied, so no answer may acknowledge it
        self._on_answer = on_answer
        self._judged = asyncio.Event()
        self._judged.set()

    def suspend(self) -> None:
        """Let its answer wait for `judge`."""
        self._judged.clear()

    def judge(self, *, is_late: bool) -> None:
        self.is_late = is_late
        self._judged.set()

    async def wait_until_judged(self) -> None:
        """Wait before an answer is passed on. Then `is_late` says whether it may be."""
        await self._judged.wait()

    def begin_answer(self) -> None:
        """Note that the process answers, so it has done what it was asked for. Safe to repeat."""
        if not self.is_answered:
            self.is_answered = True
            self._on_answer()


class Trial:
    """A version that is not shown. Whoever knows `secret` gets its answers all the same."""

    def __init__(self, secret: str, serving: Serving, slot: Slot, files: Folder) -> None:
        self.secret = secret
        self.serving = serving
        self.slot = slot
        self.files = files
        self.requests = 0  # that reached it
        self.entrance = asyncio.Lock()  # of who connects to its process


class Site:
    """The one object that the front and the runner share."""

    def __init__(self, *, slot: Slot = SLOTS[0], libraries: str = BROWSER_LIBRARIES) -> None:
        self.libraries = libraries
        self.serving = Serving.NOTHING
        self.slot = slot
        self.files = _nothing(slot)
        self.trial: Trial | None = None
        self.entrance = asyncio.Lock()  # of who connects to the process, whichever is shown
        self.upload_max_bytes = UPLOAD_MAX_BYTES  # of the body of a request
        self._slugs: set[str] = set()
        self._visits: set[Visit] = set()
        self._visits_changed = asyncio.Event()
        self._holds = 0
        self.held = 0  # requests that wait now
        self._hold_ended = asyncio.Event()
        self._last_release_s = 0.0

    def show(self, serving: Serving, slot: Slot, files: Folder | None = None) -> None:
        """Use this slot from the next request on. Requests under way stay with theirs.

        `files` are those that a static app shows.
        """
        self.serving = serving
        self.slot = slot
        self.files = files or _nothing(slot)

    def trial_for(self, secret: str | None) -> Trial | None:
        """The version that a request asks for with this secret; None: it gets what is shown."""
        return self.trial if self.trial is not None and self.trial.secret == secret else None

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Let new requests for the process wait, until whoever is shown at the end answers them."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._hold_ended.set()

    @property
    def is_held(self) -> bool:
        return self._holds > 0

    async def pass_hold(self) -> bool:
        """Wait while requests are held. False if that takes too long, or if too many wait."""
        if not self.is_held:
            return True
        if self.held >= HELD_MAX:
            return False
        self.held += 1
        try:
            async with asyncio.timeout(HELD_LIMIT_S):
                while self.is_held:
                    self._hold_ended.clear()
                    await self._hold_ended.wait()
                    await self._take_turn()
        except TimeoutError:
            return False
        finally:
            self.held -= 1
        return True

    async def _take_turn(self) -> None:
        now_s = asyncio.get_running_loop().time()
        self._last_release_s = max(now_s, self._last_release_s + RELEASE_PAUSE_S)
        await asyncio.sleep(self._last_release_s - now_s)

    @contextlib.contextmanager
    def visit(self, slot: Slot, method: bytes) -> Iterator[Visit]:
        """Wrap each request that the slot's process answers, to count it."""
        visit = Visit(slot, method, self._visits_changed.set)
        self._visits.add(visit)
        try:
            yield visit
        finally:
            self._visits.remove(visit)
            self._visits_changed.set()

    async def wait_until_answered(self, slot: Slot, *, write_limit_s: float) -> None:
        """Wait until the slot's process has begun to answer each request, but only so long.

        A stream or a WebSocket that is open is one that has been answered.
        """
        for may_write, limit_s in ((True, write_limit_s), (False, READ_LIMIT_S)):
            unanswered = functools.partial(_is_unanswered, slot, may_write)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._wait_while(unanswered)

    @contextlib.asynccontextmanager
    async def quiet(self, *, write_limit_s: float) -> AsyncIterator[None]:
        """Hold requests, and wait for those under way: nothing is acknowledged meanwhile.

        What takes longer is answered at the end. If another slot is shown by then, the answer is
        dropped: what the request wrote may have missed the copy. A GET may write, too.
        """
        slot = self.slot
        with self.hold():
            await self.wait_until_answered(slot, write_limit_s=write_limit_s)
            late = [visit for visit in self._visits if visit.slot == slot and not visit.is_answered]
            for visit in late:
                visit.suspend()
            try:
                yield
            finally:
                for visit in late:
                    visit.judge(is_late=self.slot != slot)

    async def wait_until_drained(self, slot: Slot) -> None:
        """Wait until no request is under way in this slot. The caller sets a deadline."""
        await self._wait_while(lambda visit: visit.slot == slot)

    async def _wait_while(self, is_awaited: Callable[[Visit], bool]) -> None:
        while any(is_awaited(visit) for visit in self._visits):
            self._visits_changed.clear()
            await self._visits_changed.wait()

    def answer_to(self, slug: str) -> None:
        """Accept requests for this slug from now on."""
        self._slugs.add(slug.lower())

    def is_ours(self, host: str) -> bool:
        """Whether a Host header's first label is one of this sandbox's slugs.

        Ports are handed out again: a proxy with an old route must never show one session's app
        at another session's address.
        """
        return host.partition(":")[0].partition(".")[0].lower() in self._slugs


def _nothing(slot: Slot) -> Folder:
    return Folder(root=slot.folder, files=())


def _is_unanswered(slot: Slot, may_write: bool, visit: Visit) -> bool:
    return visit.slot == slot and visit.may_write == may_write and not visit.is_answered
