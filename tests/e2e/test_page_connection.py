"""The page in a real browser when its connection to the API is bad or slow."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta

from playwright.sync_api import Error, Route, expect

from tests.e2e.installation import until
from tests.e2e.visit import POLL_MS, PROMPT, Visit

CROWD = {"code": "too_many_requests", "detail": "too much", "retry_after": 1, "limit": 100}


def test_an_outage_keeps_the_last_state_and_ends_by_itself(visit: Visit) -> None:
    _submit_and_lose_polls(visit)


def test_so_does_a_crowd_behind_the_same_address(visit: Visit) -> None:
    visit.api.problem = (429, CROWD)
    _submit_and_lose_polls(visit)


def _submit_and_lose_polls(visit: Visit) -> None:
    visit.expected_statuses = {str(visit.api.problem[0])}
    visit.submit()
    visit.step()
    expect(visit.state).to_have_text("Provisioning")
    visit.api.is_away = True
    visit.wait_until(lambda: visit.api.unanswered >= 3)
    expect(visit.page.get_by_text("Reconnecting…")).to_be_visible()
    expect(visit.state).to_have_text("Provisioning")
    visit.api.is_away, visit.api.steps = False, None
    visit.wait_for(visit.link)
    expect(visit.page.get_by_text("Reconnecting…")).to_be_hidden()


def test_a_dropped_connection_during_the_request_makes_one_session(visit: Visit) -> None:
    dropped: list[Route] = []

    def lose_first_response(route: Route) -> None:
        if route.request.method == "POST" and not dropped:
            dropped.append(route)
            route.fetch()  # the server creates the session, but the page gets no response
            route.abort("connectionreset")
        else:
            route.continue_()

    visit.drops_connections = True
    visit.page.route("**/api/sessions", lose_first_response)
    visit.submit()
    visit.wait_for(visit.link)
    assert len(visit.api.keys) == 2
    assert len(visit.api.sessions) == 1


def test_a_partly_loaded_page_reloads_itself_and_gives_up_in_the_end(visit: Visit) -> None:
    aborted: list[Route] = []
    present = 2

    def abort_some(route: Route) -> None:
        if len(aborted) < present:
            aborted.append(route)
            route.abort("connectionreset")
        else:
            route.continue_()

    visit.drops_connections = True
    visit.page.route("**/static/words.js", abort_some)
    visit.page.reload()
    expect(visit.tile("kanban")).to_be_visible()
    assert len(aborted) >= 2

    aborted.clear()
    present = 99
    visit.page.reload()
    until(lambda: count_reloads(visit) == "3", 30, "the last reload")
    visit.page.wait_for_load_state("networkidle")
    assert count_reloads(visit) == "3"
    assert len(aborted) <= 4
    assert any("dynamically imported module" in error for error in visit.errors)
    visit.errors.clear()


def count_reloads(visit: Visit) -> str | None:
    """How often the page has reloaded itself in a row, as it counts; None also during a load."""
    with contextlib.suppress(Error):
        counted: str | None = visit.page.evaluate("sessionStorage.getItem('spawn.reloads')")
        return counted
    return None


def test_a_reload_continues_with_the_same_session(visit: Visit) -> None:
    visit.submit()
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
    assert [session.prompt for session in visit.api.sessions.values()] == [PROMPT]


def test_a_retry_after_an_outage_carries_the_same_idempotency_key(visit: Visit) -> None:
    visit.expected_statuses = {"503"}
    visit.api.refuse(503, "unavailable", "the database is away", retry_after=3)
    visit.submit()
    expect(visit.page.locator("#composer-error")).to_contain_text("try again in 3 seconds")
    visit.page.get_by_role("button", name="Make this app").click()
    visit.wait_for(visit.link)
    assert len(visit.api.keys) == 2
    assert len(set(visit.api.keys)) == 1


def test_an_unchanged_status_is_not_sent_again(visit: Visit) -> None:
    visit.api.steps = 0
    visit.submit()
    visit.wait_until(lambda: visit.api.not_modified >= 2)
    expect(visit.state).to_have_text("Queued")
    visit.api.steps = None
    visit.wait_for(visit.link)


def test_the_countdown_goes_by_the_clock_of_the_server(visit: Visit) -> None:
    visit.api.date = datetime.now(UTC) + timedelta(hours=1)
    visit.reload(visit.tile("todo"))
    visit.page.get_by_text("2 h", exact=True).click()
    visit.tile("todo").click()
    visit.wait_for(visit.link)
    expect(visit.page.locator("#countdown")).to_have_text(re.compile("^0(0:59|1:00):"))


def test_a_hidden_tab_does_not_poll(visit: Visit) -> None:
    visit.submit()
    visit.step()
    _show_tab(visit, shown=False)
    before = visit.polls
    visit.page.clock.run_for(60 * POLL_MS)
    assert visit.polls == before
    visit.api.steps = None
    _show_tab(visit, shown=True)
    visit.wait_for(visit.link)


def _show_tab(visit: Visit, *, shown: bool) -> None:
    """Tell the page that its tab is hidden or shown, as a browser does. Headless tabs never do."""
    visit.page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        not shown,
    )
