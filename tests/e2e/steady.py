"""A steady load on some apps. It records every missing or wrong response."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from tests.e2e.installation import Installation

RATE_PER_S = 20


@dataclass(frozen=True, kw_only=True)
class VisitedApp:
    """An app under load. Each of its pages must contain one of `texts`."""

    url: str
    texts: Sequence[str]


class SteadyLoad:
    """Sends RATE_PER_S requests per second within its context, to the apps in turn."""

    def __init__(self, spawn: Installation, apps: Sequence[VisitedApp]) -> None:
        self._spawn = spawn
        self._apps = apps
        self._stop = threading.Event()
        self._counted = threading.Condition()
        self._thread = threading.Thread(target=self._run)
        self.count = 0
        self.failed: list[str] = []  # requests without a response 200
        self.wrong: list[str] = []  # URLs of pages without any of their texts
        self.texts: list[str] = []  # the text of each other page, in the order of the responses

    def __enter__(self) -> SteadyLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait(self, count: int) -> None:
        """Wait for `count` more requests to end, with success or not."""
        goal = self.count + count
        with self._counted:
            assert self._counted.wait_for(lambda: self.count >= goal, timeout=120)

    def _run(self) -> None:
        turn = 0
        while not self._stop.wait(1 / RATE_PER_S):
            self._visit(self._apps[turn % len(self._apps)])
            turn += 1
            with self._counted:
                self.count += 1
                self._counted.notify_all()

    def _visit(self, app: VisitedApp) -> None:
        try:
            response = self._spawn.call_app(app.url)
        except OSError as error:
            self.failed.append(f"{app.url}: {error!r}")
            return
        text = next((text for text in app.texts if text in response.text), None)
        if response.status != 200:
            self.failed.append(f"{app.url}: {response.status}")
        elif text is None:
            self.wrong.append(app.url)
        else:
            self.texts.append(text)
