"""The page with the whole system: a prompt, its app, a change, and a restore of version 1."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.installation import Installation, installed
from tests.e2e.visit import load_with_retries
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import CallsTurn, ToolTurn

KEY = "a-test-key-of-the-page"
PROMPT = "A page about tides"
TIMEOUT_MS = 60_000


@pytest.fixture(scope="module")
def provider() -> Iterator[MessagesApi]:
    with MessagesApi(key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def writer(provider: MessagesApi) -> Iterator[Installation]:
    with installed(ANTHROPIC_API_KEY=KEY, ANTHROPIC_BASE_URL=provider.url) as writer:
        yield writer


def app_of(page: Page) -> Page:
    """A tab with the running app, from the card's link."""
    url = page.get_by_role("link", name="Open your app").get_attribute("href")
    assert url is not None
    tab = page.context.new_page()
    load_with_retries(lambda: tab.goto(url))
    return tab


def test_a_visitor_makes_an_app_changes_it_and_goes_back(
    writer: Installation, provider: MessagesApi, browser: Browser
) -> None:
    manifest = '{"kind": "static", "title": "Tides"}'
    provider.play(
        CallsTurn(
            calls=[
                ("write_file", {"path": "spawn.json", "content": manifest}),
                ("write_file", {"path": "index.html", "content": "<h1>High tide</h1>"}),
            ]
        ),
        ToolTurn(name="finish", input={"summary": "It tells of the high tide."}),
    )
    edit = {"path": "index.html", "old_text": "High", "new_text": "Low"}
    provider.play_for(
        "tell of the low tide",
        ToolTurn(name="edit_file", input=edit),
        ToolTurn(name="finish", input={"summary": "It tells of the low tide."}),
    )
    page = browser.new_context().new_page()
    page.set_default_timeout(TIMEOUT_MS)
    load_with_retries(lambda: page.goto(f"http://localhost:{writer.http_port}/"))
    expect(page.locator('[data-template="kanban"]')).to_be_visible()  # its scripts have loaded
    page.get_by_label("What should it be?").fill(PROMPT)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("link", name="Open your app")).to_be_visible(timeout=TIMEOUT_MS)
    expect(app_of(page).get_by_role("heading")).to_have_text("High tide")

    page.get_by_label("What should change?").fill("tell of the low tide")
    page.keyboard.press("Control+Enter")
    message = page.locator('[data-message="1"]')
    expect(message).to_contain_text("It tells of the low tide.", timeout=TIMEOUT_MS)
    expect(message).to_contain_text("Version 2")
    expect(app_of(page).get_by_role("heading")).to_have_text("Low tide")

    page.locator("#versions > summary").click()
    page.get_by_role("button", name="Restore version 1").click()
    restored = page.locator('[data-message="2"]')
    expect(restored).to_contain_text("Went back to version 1", timeout=TIMEOUT_MS)
    expect(app_of(page).get_by_role("heading")).to_have_text("High tide")
    expect(page.locator("body")).to_contain_text("4 calls")
    page.context.close()
