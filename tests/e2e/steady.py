"""A steady stream of visitors to some apps, who notice every answer that is missing or wrong."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from tests.e2e.installation import Installation

RATE_PER_S = 20


@dataclass(frozen=True, kw_only=True)
class Visited:
    """One app, and what its page must have one of."""

    url: str
    words: Sequence[str]


class Steady:
    """About 20 requests a second in all, in turn to each app, while the context lasts."""

    def __init__(self, one: Installation, apps: Sequence[Visited]) -> None:
        self._one = one
        self._apps = apps
        self._stop = threading.Event()
        self._enough = threading.Condition()
        self._thread = threading.Thread(target=self._run)
        self.count = 0
        self.failed: list[str] = []
        self.wrong: list[str] = []
        self.seen: list[str] = []  # the words of the pages, in the order in which they came

    def __enter__(self) -> Steady:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait(self, more: int) -> None:
        """Until so many more requests were answered, well or badly."""
        goal = self.count + more
        with self._enough:
            assert self._enough.wait_for(lambda: self.count >= goal, timeout=120)

    def _run(self) -> None:
        turn = 0
        while not self._stop.wait(1 / RATE_PER_S):
            self._ask(self._apps[turn % len(self._apps)])
            turn += 1
            with self._enough:
                self.count += 1
                self._enough.notify_all()

    def _ask(self, app: Visited) -> None:
        try:
            answer = self._one.app(app.url)
        except OSError as error:
            self.failed.append(f"{app.url}: {error!r}")
            return
        words = next((words for words in app.words if words in answer.text), None)
        if answer.status != 200:
            self.failed.append(f"{app.url}: {answer.status}")
        elif words is None:
            self.wrong.append(app.url)
        else:
            self.seen.append(words)
