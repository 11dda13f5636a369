"""A visitor's tab in Debian's Chromium, for the tests of the page.

The page's clock stands still. Only a test moves it forward, so that the page polls only when the
test waits.
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
TABS = 40
NOT_LOADED = "Failed to load resource:"
# Chromium reports it when a container starts or stops on this machine. The page must cope with it.
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
DROPPED = "net::ERR_CONNECTION_RESET"
PROMPT = "A habit tracker with a calendar of streaks"
BLUE = "Make the header blue"
SEARCH = "Add a search box"
_SHOWN_MS = 30_000  # until what is expected is shown; a busy machine takes its time


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window. It contacts no servers of its own."""
    expect.set_options(timeout=_SHOWN_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


@contextmanager
def visiting(browser: Browser) -> Iterator[Visit]:
    """A first visit to the page, on its own server. The browser's console must stay clean."""
    with PageApi() as api:
        context = browser.new_context(reduced_motion="reduce")
        visit = Visit(page=context.new_page(), api=api)
        visit.open()
        yield visit
        context.close()
        assert visit.unexpected_errors() == []


def load_with_retries(load: Callable[[], object]) -> None:
    """Load a page. Retry if containers that start or stop on this machine disturb it."""
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
    errors: list[str] = field(default_factory=list)  # errors and warnings on the console
    polls: int = 0  # requests for a status so far
    expected_statuses: set[str] = field(default_factory=set)  # HTTP errors that the test causes
    drops_connections: bool = False  # whether the test drops connections

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._record_message)
        self.page.on("request", self._count_poll)

    def _count_poll(self, request: Request) -> None:
        self.polls += "/api/status/" in request.url

    def _record_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def open(self) -> None:
        now = datetime.now(UTC)
        self.page.clock.install(time=now)
        self.page.clock.pause_at(now + timedelta(seconds=1))
        self._load()
        self._wait_for_gallery()

    def _wait_for_gallery(self) -> None:
        """The clock stays where it is, unless a request was lost: the page's retry needs time to
        pass."""
        try:
            expect(self.tile("kanban")).to_be_visible()
        except AssertionError:
            self.wait_for(self.tile("kanban"))

    def reload(self, element: Locator) -> None:
        """Reload the page, and wait for the element. The page repeats lost requests by itself."""
        load_with_retries(self.page.reload)
        self.wait_for(element)

    def _load(self) -> None:
        load_with_retries(lambda: self.page.goto(self.api.url))

    def tile(self, name: str) -> Locator:
        return self.page.locator(f'[data-template="{name}"] .tile-start')

    def submit(self, prompt: str = PROMPT) -> None:
        """Submit the prompt. Returns when the page has the session."""
        self.page.get_by_label("What should it be?").fill(prompt)
        card, error = self.page.locator("#session"), self.page.locator("#composer-error")
        for _ in range(TRIES):
            self.page.get_by_role("button", name="Make this app").click()
            if self.expected_statuses or self.drops_connections:
                return  # the test checks the outcome
            expect(card.or_(error).filter(visible=True).first).to_be_visible()
            if card.is_visible():
                return
            # A network change has lost the request: submit it again, as the page asks.

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Move the page's clock forward, so that it polls, until the condition is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self._timeout_message()
            self.page.clock.fast_forward(POLL_MS)

    def _timeout_message(self) -> str:
        """The browser's errors and the text of the page."""
        text = self.page.locator("main").inner_text()
        return f"not within {PATIENCE_S} s and {self.polls} polls: {self.errors}\n{text}"

    def wait_for(self, element: Locator) -> None:
        self.wait_until(element.is_visible)

    def tab_to(self, element: Locator) -> None:
        """Press Tab until the element has the focus."""
        for _ in range(TABS):
            if element.evaluate("element => element === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab never reached {element}")

    def step(self) -> None:
        """Let the session take one step, and let the page poll until it knows."""
        self.api.steps = 1
        self.wait_until(lambda: self.api.steps == 0)

    def poll(self) -> None:
        """Let the page poll once, and wait for the response."""
        with self.page.expect_response("**/api/status/*"):
            self.page.clock.fast_forward(POLL_MS)

    def send(self, text: str) -> None:
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

    def announcement(self) -> Locator:
        """The latest announcement for screen readers."""
        self.page.clock.run_for(ANNOUNCED_AFTER_MS)
        return self.page.locator("#announcer")

    @property
    def state(self) -> Locator:
        return self.page.locator("#session-state")

    @property
    def link(self) -> Locator:
        return self.page.get_by_role("link", name="Open your app")

    def unexpected_errors(self) -> list[str]:
        statuses = (
            f"{NOT_LOADED} the server responded with a status of {code}"
            for code in self.expected_statuses
        )
        drops = (f"{NOT_LOADED} {DROPPED}",) if self.drops_connections else ()
        expected = (f"{NOT_LOADED} {NETWORK_CHANGED}", *drops, *statuses)
        return [error for error in self.errors if not error.startswith(expected)]
