"""Every built-in app in Chromium, at the width of a phone and of a desk, dark and light."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.integration.catalog.world import CATALOG, served

NAMES = sorted(path.parent.name for path in CATALOG.glob("*/spawn.json"))


@dataclass(kw_only=True)
class Visit:
    """What a browser noticed while a page was open."""

    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    width: int = 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "these tests need Chromium: apt install chromium"
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield launched
        launched.close()


def visit(browser: Browser, base: str, *, width: int, dark: bool) -> Visit:
    seen = Visit()
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    page.on("console", lambda message: seen.complaints.append(message.text))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("request", lambda request: seen.foreign.append(request.url))
    page.goto(base, wait_until="load")
    page.locator("h1").first.wait_for()
    seen.width = page.evaluate("document.documentElement.scrollWidth")
    context.close()
    seen.foreign = [url for url in seen.foreign if not url.startswith((base, "data:", "blob:"))]
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_an_app_opens_cleanly_on_a_phone_and_on_a_desk(
    browser: Browser, tmp_path: Path, name: str
) -> None:
    with served(name, tmp_path) as base:
        for width, dark in ((360, True), (1280, False)):
            seen = visit(browser, base, width=width, dark=dark)
            assert seen == Visit(width=seen.width)  # no complaint, no request to anywhere else
            assert seen.width <= width
