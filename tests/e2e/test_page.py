"""The page in a real browser, over a scripted API: what a visitor does and then sees."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from playwright.sync_api import expect

from tests.e2e.visit import PROMPT, Visit
from tests.fakes.page import scripts


def test_a_prompt_becomes_a_link_through_every_state(visit: Visit) -> None:
    visit.api.steps = 0
    visit.page.get_by_label("What should it be?").fill(PROMPT)
    visit.page.keyboard.press("Control+Enter")
    expect(visit.page.locator("#session-message")).to_contain_text("number 2 in the queue")
    for label, percent in (
        ("Provisioning", 30),
        ("Generating", 31),
        ("Generating", 58),
        ("Deploying", 90),
    ):
        visit.step()
        expect(visit.state).to_have_text(label)
        expect(visit.page.get_by_role("progressbar")).to_have_attribute(
            "aria-valuenow", str(percent)
        )
    visit.step()
    expect(visit.page.locator("#announcer")).not_to_have_text("")
    expect(visit.page.locator('[data-step="deploying"] small')).to_have_text("0.9 s")
    expect(visit.link).to_have_attribute("rel", "noopener")
    with visit.page.expect_popup() as popup:
        visit.link.click()
    expect(popup.value.get_by_role("heading")).to_have_text("It runs")


def test_a_click_on_a_template_starts_it_for_the_chosen_time(visit: Visit) -> None:
    visit.page.get_by_text("2 h", exact=True).click()
    visit.tile("snake").click()
    visit.wait_for(visit.link)
    (session,) = visit.api.sessions.values()
    assert (session.template, session.prompt) == ("snake", "")
    assert session.expires_at - session.created_at == timedelta(hours=2)
    expect(visit.page.locator('[data-step="generating"]')).to_be_hidden()


def test_a_template_can_be_the_start_of_a_prompt(visit: Visit) -> None:
    visit.page.get_by_role("button", name="Edit as prompt: Snake").click()
    expect(visit.page.get_by_label("What should it be?")).to_be_focused()
    expect(visit.page.get_by_label("What should it be?")).to_have_value(re.compile("^Snake: "))
    assert visit.api.sessions == {}


def test_an_empty_prompt_shows_its_error_at_the_prompt(visit: Visit) -> None:
    visit.expected_statuses = {"422"}
    visit.submit("")
    expect(visit.page.locator("#prompt-error")).to_have_text(
        "Say what the app should be, or name a template."
    )
    prompt = visit.page.get_by_label("What should it be?")
    expect(prompt).to_be_focused()
    expect(prompt).to_have_attribute("aria-invalid", "true")
    prompt.press_sequentially("A")
    expect(visit.page.locator("#prompt-error")).to_be_hidden()


@pytest.mark.parametrize("start", ["prompt", "template"])
def test_a_refused_time_shows_its_error_at_the_time(visit: Visit, start: str) -> None:
    visit.expected_statuses = {"422"}
    visit.api.refuse(422, "ttl_out_of_range", "too long", field="ttl", min_s=60, max_s=7200)
    if start == "prompt":
        visit.submit()
    else:
        visit.tile("todo").click()
    expect(visit.page.locator("#ttl-error")).to_have_text(
        "Choose a time between 1 minute and 2 hours."
    )
    expect(visit.page.locator("#prompt-error")).to_be_hidden()


def test_a_reached_limit_is_shown_with_its_number_and_the_wait(visit: Visit) -> None:
    visit.expected_statuses = {"429"}
    visit.api.refuse(429, "too_many_sessions", "no more", limit=5, retry_after=120)
    visit.submit()
    expect(visit.page.locator("#composer-error")).to_contain_text("limit of 5 apps")
    expect(visit.page.locator("#composer-error")).to_contain_text("in 2 minutes")
    expect(visit.page.get_by_label("What should it be?")).to_have_value(PROMPT)


def test_a_crowd_behind_the_same_address_is_not_mistaken_for_too_many_apps(visit: Visit) -> None:
    visit.expected_statuses = {"429"}
    visit.api.refuse(429, "too_many_requests", "too much", limit=100, retry_after=1)
    visit.submit()
    expect(visit.page.locator("#composer-error")).to_contain_text("Your network asks for a lot")
    expect(visit.page.locator("#composer-error")).to_contain_text("try again in 1 second")


@pytest.mark.parametrize("code", ["storage_quota", "messages_full"])
def test_another_limit_is_explained_by_what_the_server_says(visit: Visit, code: str) -> None:
    visit.expected_statuses = {"429"}
    visit.api.refuse(429, code, "delete an app first", limit=5)
    visit.submit()
    expect(visit.page.locator("#composer-error")).to_have_text("Delete an app first.")


def test_without_a_claude_key_the_templates_are_offered_instead(visit: Visit) -> None:
    visit.expected_statuses = {"409"}
    visit.api.refuse(
        409,
        "generation_unavailable",
        "no key",
        field="prompt",
        setting="ANTHROPIC_API_KEY",
        templates=["kanban", "todo"],
    )
    visit.submit()
    expect(visit.page.locator("#prompt-error")).to_contain_text("ANTHROPIC_API_KEY")
    visit.page.locator("#suggested").get_by_role("button", name="Kanban board").click()
    visit.wait_for(visit.link)
    expect(visit.page.locator("#suggested")).to_be_hidden()


def test_the_keyboard_alone_is_enough(visit: Visit) -> None:
    keys = visit.page.keyboard
    keys.press("Tab")
    expect(visit.page.get_by_role("link", name="Skip to the prompt")).to_be_focused()
    keys.press("Enter")
    expect(visit.page.get_by_label("What should it be?")).to_be_focused()
    visit.tab_to(visit.tile("kanban"))
    keys.press("Enter")
    expect(visit.page.get_by_role("heading", name="Kanban board", level=2)).to_be_focused()
    visit.wait_for(visit.link)
    keys.press("Tab")
    expect(visit.link).to_be_focused()
    visit.tab_to(visit.page.get_by_role("button", name="Delete"))
    keys.press("Enter")
    expect(visit.page.get_by_role("button", name="Keep it")).to_be_focused()
    keys.press("Escape")
    expect(visit.page.get_by_role("button", name="Delete", exact=True)).to_be_focused()
    expect(visit.state).to_have_text("Ready")


def test_a_failure_shows_its_code_and_log_and_can_be_retried(visit: Visit) -> None:
    visit.api.scripts.append(scripts.BROKEN)
    visit.submit()
    visit.wait_for(visit.page.get_by_text("app_not_ready").first)
    message = visit.page.locator("#failure-message")
    expect(message).to_contain_text("No module named 'numpy'")
    expect(message).to_have_css("white-space-collapse", "preserve")
    visit.page.get_by_role("button", name="Try again").click()
    visit.wait_for(visit.link)
    assert len(set(visit.api.keys)) == 2


def test_the_countdown_ticks_and_an_extension_starts_it_again(visit: Visit) -> None:
    visit.page.get_by_text("30 min", exact=True).click()
    visit.tile("todo").click()
    visit.wait_for(visit.link)
    before = _seconds_left(visit)
    visit.page.clock.run_for(1000)
    assert _seconds_left(visit) == before - 1
    visit.page.get_by_label("From now, keep it for").select_option("8h")
    visit.page.get_by_role("button", name="Extend").click()
    expect(visit.page.locator("#countdown")).to_have_text(re.compile("^0[78]:"))
    visit.page.get_by_label("From now, keep it for").select_option("2h")
    expect(visit.page.locator("#extend-button")).to_have_text("Shorten")


def _seconds_left(visit: Visit) -> int:
    text = visit.page.locator("#countdown").inner_text()
    hours, minutes, seconds = (int(part) for part in text.split(":"))
    return hours * 3600 + minutes * 60 + seconds


def test_a_deletion_asks_for_confirmation_and_ends_the_app(visit: Visit) -> None:
    visit.tile("todo").click()
    visit.wait_for(visit.link)
    visit.page.get_by_role("button", name="Delete", exact=True).click()
    visit.page.get_by_role("button", name="Delete app").click()
    visit.wait_for(visit.page.get_by_role("button", name="Make it again"))
    expect(visit.state).to_have_text("Gone")
    expect(visit.link).to_be_hidden()
    expect(visit.page.locator("#apps-earlier-count")).to_have_text("1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_narrowest_phone_needs_no_sideways_scrolling(visit: Visit, scheme: str) -> None:
    visit.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    visit.page.set_viewport_size({"width": 360, "height": 640})
    visit.submit("averyveryverylongwordthatnothingbreaks" * 4)
    visit.wait_for(visit.link)
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 360
