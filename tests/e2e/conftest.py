"""Fixtures that several modules share: an installation, a browser, a visit to the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.installation import Installation, installed
from tests.e2e.visit import Visit, chromium, visiting
from tests.fakes.page.scripts import Scripted


@pytest.fixture(scope="session")
def spawn() -> Iterator[Installation]:
    """One installation without a Claude key, for all tests that don't break it."""
    with installed() as spawn:
        yield spawn


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, one process per test module."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """A first visit to the page, over a scripted API."""
    with visiting(browser) as visit:
        yield visit


@pytest.fixture
def app(visit: Visit) -> Scripted:
    """A running app that the visitor made from a prompt. The page shows its card."""
    visit.submit()
    visit.wait_for(visit.link)
    expect(visit.versions).to_be_visible()
    (session,) = visit.api.sessions.values()
    return session
