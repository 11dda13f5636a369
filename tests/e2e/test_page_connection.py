"""The page in a real browser when the line to the API is bad, slow or asked too much of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.e2e.visit import POLL_MS, PROMPT, Visit, chromium, visiting


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    with visiting(browser) as opened:
        yield opened


def test_an_outage_keeps_the_last_state_and_ends_by_itself(visit: Visit) -> None:
    visit.refused = {"503"}
    visit.ask()
    visit.step()
    expect(visit.state).to_have_text("Provisioning")
    visit.api.is_away = True
    visit.wait_until(lambda: visit.api.unanswered >= 3)
    expect(visit.page.get_by_text("Reconnecting…")).to_be_visible()
    expect(visit.state).to_have_text("Provisioning")
    visit.api.is_away, visit.api.steps = False, None
    visit.wait_for(visit.link)
    expect(visit.page.get_by_text("Reconnecting…")).to_be_hidden()


def test_a_dropped_connection_while_asking_makes_one_session(visit: Visit) -> None:
    dropped: list[Route] = []

    def answer_lost(route: Route) -> None:
        if route.request.method == "POST" and not dropped:
            dropped.append(route)
            route.fetch()  # the server did it, and the page never hears of it
            route.abort("connectionreset")
        else:
            route.continue_()

    visit.drops = True
    visit.page.route("**/api/sessions", answer_lost)
    visit.ask()
    visit.wait_for(visit.link)
    assert len(visit.api.keys) == 2
    assert len(visit.api.sessions) == 1


def test_a_page_that_loaded_in_part_loads_itself_again(visit: Visit) -> None:
    aborted: list[Route] = []

    def lost_once(route: Route) -> None:
        if aborted:
            route.continue_()
        else:
            aborted.append(route)
            route.abort("connectionreset")

    visit.drops = True
    visit.page.route("**/static/words.js", lost_once)
    visit.page.reload()
    expect(visit.tile("kanban")).to_be_visible()
    assert len(aborted) == 1


def test_a_reload_goes_on_where_it_was(visit: Visit) -> None:
    visit.ask()
    visit.step()
    expect(visit.state).to_have_text("Provisioning")
    visit.reload(visit.state.filter(has_text="Provisioning"))
    expect(visit.page.get_by_role("heading", name=PROMPT)).to_be_visible()
    visit.api.steps = None
    visit.wait_for(visit.link)
    expect(visit.page.locator("#apps-live .row")).to_have_count(1)


def test_a_double_click_makes_one_session(visit: Visit) -> None:
    visit.page.get_by_label("What should it be?").fill(PROMPT)
    visit.page.get_by_role("button", name="Make this app").dblclick()
    visit.wait_for(visit.link)
    assert [made.prompt for made in visit.api.sessions.values()] == [PROMPT]


def test_a_retry_after_an_outage_carries_the_same_idempotency_key(visit: Visit) -> None:
    visit.refused = {"503"}
    visit.api.refuse(503, "unavailable", "the database is away", retry_after=3)
    visit.ask()
    expect(visit.page.locator("#composer-error")).to_contain_text("try again in 3 seconds")
    visit.page.get_by_role("button", name="Make this app").click()
    visit.wait_for(visit.link)
    assert len(visit.api.keys) == 2
    assert len(set(visit.api.keys)) == 1


def test_an_unchanged_status_is_not_sent_again(visit: Visit) -> None:
    visit.api.steps = 0
    visit.ask()
    visit.wait_until(lambda: visit.api.not_modified >= 2)
    expect(visit.state).to_have_text("Queued")
    visit.api.steps = None
    visit.wait_for(visit.link)


def test_a_hidden_tab_does_not_poll(visit: Visit) -> None:
    visit.ask()
    visit.step()
    _show_tab(visit, shown=False)
    before = visit.polls
    visit.page.clock.run_for(60 * POLL_MS)
    assert visit.polls == before
    visit.api.steps = None
    _show_tab(visit, shown=True)
    visit.wait_for(visit.link)


def _show_tab(visit: Visit, *, shown: bool) -> None:
    """What the browser tells a page when its tab goes to the back; headless tabs never do."""
    visit.page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        not shown,
    )
