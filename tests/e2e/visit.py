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
    Error,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.fakes.page.api import PageApi

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
ANNOUNCED_AFTER_MS = 100
PATIENCE_S = 60
TRIES = 5
NOT_LOADED = "Failed to load resource:"
# Said whenever a container starts or stops on this machine; the page has to live with it.
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
DROPPED = "net::ERR_CONNECTION_RESET"
PROMPT = "A habit tracker with a calendar of streaks"


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, without a window and without calls home."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield running
        running.close()


@contextmanager
def visiting(browser: Browser) -> Iterator[Visit]:
    """A first visit to a page of its own server. The console has to stay clean."""
    with PageApi() as api:
        context = browser.new_context(reduced_motion="reduce")
        visit = Visit(page=context.new_page(), api=api)
        visit.open()
        yield visit
        context.close()
        assert visit.complaints() == []


def insist(load: Callable[[], object]) -> None:
    """Load a page, whatever containers come and go on this machine meanwhile."""
    for _ in range(TRIES):
        try:
            load()
            return
        except Error as error:
            if NETWORK_CHANGED not in error.message:
                raise
    raise AssertionError(f"the network changed during {TRIES} tries to open the page")


@dataclass(kw_only=True)
class Visit:
    """A visitor's tab."""

    page: Page
    api: PageApi
    errors: list[str] = field(default_factory=list)  # what the browser complained about
    polls: int = 0  # requests for a status
    refused: set[str] = field(default_factory=set)  # statuses that the test asked for
    drops: bool = False  # whether the test drops connections

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
        self._go()
        self._await_gallery()

    def _await_gallery(self) -> None:
        """Its clock stays where it is, unless something was lost on the way: a second try takes
        time to pass."""
        try:
            expect(self.tile("kanban")).to_be_visible()
        except AssertionError:
            self.wait_for(self.tile("kanban"))

    def reload(self, wanted: Locator) -> None:
        """As a visitor does; what is lost on the way is asked for again as time goes on."""
        insist(self.page.reload)
        self.wait_for(wanted)

    def _go(self) -> None:
        insist(lambda: self.page.goto(self.api.url))

    def tile(self, name: str) -> Locator:
        return self.page.locator(f'[data-template="{name}"] .tile-start')

    def ask(self, prompt: str = PROMPT) -> None:
        self.page.get_by_label("What should it be?").fill(prompt)
        made, failed = self.page.locator("#session"), self.page.locator("#composer-error")
        for _ in range(TRIES):
            self.page.get_by_role("button", name="Make this app").click()
            if self.refused or self.drops:
                return  # what becomes of it is what the test asks
            expect(made.or_(failed).filter(visible=True).first).to_be_visible()
            if made.is_visible():
                return  # else a network change took the request: send it again, as the page says

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Move the page's clock on, so that it polls, until something is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < deadline, self._in_vain()
            self.page.clock.fast_forward(POLL_MS)

    def _in_vain(self) -> str:
        """What there is to be known of a page that doesn't get where it should."""
        shown = self.page.locator("main").inner_text()
        return f"not within {PATIENCE_S} s and {self.polls} polls: {self.errors}\n{shown}"

    def wait_for(self, wanted: Locator) -> None:
        self.wait_until(wanted.is_visible)

    def step(self) -> None:
        """Let the session go one step, and let the page hear of it."""
        self.api.steps = 1
        self.wait_until(lambda: self.api.steps == 0)

    def poll(self) -> None:
        """Let the page ask once more, and hear the answer."""
        with self.page.expect_response("**/api/status/*"):
            self.page.clock.fast_forward(POLL_MS)

    def say(self, text: str) -> None:
        """Send a message to the app on the card."""
        self.field.fill(text)
        self.page.get_by_role("button", name="Send", exact=True).click()
        expect(self.field).to_have_value("")

    @property
    def field(self) -> Locator:
        return self.page.get_by_label("What should change?")

    def message(self, number: int) -> Locator:
        return self.page.locator(f'[data-message="{number}"]')

    def version(self, number: int) -> Locator:
        return self.page.locator(f'[data-version="{number}"]')

    @property
    def versions(self) -> Locator:
        return self.page.locator("#versions > summary")

    @property
    def progress(self) -> Locator:
        return self.page.locator("#session-message")

    @property
    def bar(self) -> Locator:
        return self.page.get_by_role("progressbar")

    def heard(self) -> Locator:
        """What a screen reader was told last."""
        self.page.clock.run_for(ANNOUNCED_AFTER_MS)
        return self.page.locator("#announcer")

    @property
    def state(self) -> Locator:
        return self.page.locator("#session-state")

    @property
    def link(self) -> Locator:
        return self.page.get_by_role("link", name="Open your app")

    def complaints(self) -> list[str]:
        answers = (
            f"{NOT_LOADED} the server responded with a status of {code}" for code in self.refused
        )
        drops = (f"{NOT_LOADED} {DROPPED}",) if self.drops else ()
        expected = (f"{NOT_LOADED} {NETWORK_CHANGED}", *drops, *answers)
        return [error for error in self.errors if not error.startswith(expected)]
