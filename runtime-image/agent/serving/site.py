"""What this sandbox shows to the outside at the moment.

`stage.py` and `app.py` write it, `front.py` reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from agent.layout import APP_FOLDER, APP_PORT, BROWSER_LIBRARIES, NEXT_FOLDER, NEXT_PORT


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


class Site:
    """The one object that the front and the runner share."""

    def __init__(self, *, slot: Slot = SLOTS[0], libraries: str = BROWSER_LIBRARIES) -> None:
        self.libraries = libraries
        self.serving = Serving.NOTHING
        self.slot = slot
        self._slugs: set[str] = set()
        self._visits: Counter[Slot] = Counter()
        self._visit_ended = asyncio.Event()

    def show(self, serving: Serving, slot: Slot) -> None:
        """Use this slot from the next request on. Requests under way stay with theirs."""
        self.serving = serving
        self.slot = slot

    @contextlib.contextmanager
    def visit(self, slot: Slot) -> Iterator[None]:
        """Wrap each request that the slot's process answers, to count it."""
        self._visits[slot] += 1
        try:
            yield
        finally:
            self._visits[slot] -= 1
            self._visit_ended.set()

    async def wait_until_drained(self, slot: Slot) -> None:
        """Wait until no request is under way in this slot. The caller sets a deadline."""
        while self._visits[slot]:
            self._visit_ended.clear()
            await self._visit_ended.wait()

    def answer_to(self, slug: str) -> None:
        """Accept requests for this slug from now on."""
        self._slugs.add(slug.lower())

    def is_ours(self, host: str) -> bool:
        """Whether a Host header's first label is one of this sandbox's slugs.

        Ports are handed out again: a proxy with an old route must never show one session's app
        at another session's address.
        """
        return host.partition(":")[0].partition(".")[0].lower() in self._slugs
