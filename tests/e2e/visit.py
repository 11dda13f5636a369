"""A visitor's tab in Debian's Chromium, as the tests of the page use it.

The page's clock stands still; a test moves it on, so that no poll happens unless the test waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.fakes.page_api import PageApi

CHROMIUM = "/usr/bin/chromium"
ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)
POLL_MS = 2000
PATIENCE_S = 15
PROMPT = "A habit tracker with a calendar of streaks"


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, without a window and without calls home."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield running
        running.close()


@dataclass(kw_only=True)
class Visit:
    """A visitor's tab."""

    page: Page
    api: PageApi
    errors: list[str] = field(default_factory=list)  # what the browser complained about
    polls: int = 0  # requests for a status
    refused: set[str] = field(default_factory=set)  # statuses that the test asked for

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._note)
        self.page.on("request", self._count)

    def _count(self, request: Request) -> None:
        self.polls += "/api/status/" in request.url

    def _note(self, told: ConsoleMessage) -> None:
        if told.type in ("error", "warning"):
            self.errors.append(told.text)

    def open(self) -> None:
        now = datetime.now(UTC)
        self.page.clock.install(time=now)
        self.page.clock.pause_at(now + timedelta(seconds=1))
        self.page.goto(self.api.url)
        expect(self.tile("kanban")).to_be_visible()

    def tile(self, name: str) -> Locator:
        return self.page.locator(f'[data-template="{name}"] .tile-start')

    def ask(self, prompt: str = PROMPT) -> None:
        self.page.get_by_label("What should it be?").fill(prompt)
        self.page.get_by_role("button", name="Make this app").click()

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Move the page's clock on, so that it polls, until something is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < deadline, f"not within {PATIENCE_S} s of polling"
            self.page.clock.fast_forward(POLL_MS)

    def wait_for(self, wanted: Locator) -> None:
        self.wait_until(wanted.is_visible)

    def step(self) -> None:
        """Let the session go one step, and let the page hear of it."""
        self.api.steps = 1
        self.wait_until(lambda: self.api.steps == 0)

    @property
    def state(self) -> Locator:
        return self.page.locator("#session-state")

    @property
    def link(self) -> Locator:
        return self.page.get_by_role("link", name="Open your app")

    def complaints(self) -> list[str]:
        expected = tuple(
            f"Failed to load resource: the server responded with a status of {code}"
            for code in self.refused
        )
        return [error for error in self.errors if not error.startswith(expected or "\0")]
