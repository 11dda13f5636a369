"""The page in a real browser when an app is changed: messages, versions, restores, cost."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Route, expect

from tests.e2e.visit import PROMPT, Visit, chromium, visiting
from tests.fakes.page import scripts
from tests.fakes.page.scripts import Course, Scripted

BLUE = "Make the header blue"
SEARCH = "Add a search box"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    with visiting(browser) as opened:
        yield opened


@pytest.fixture
def app(visit: Visit) -> Scripted:
    """An app that a prompt has become, on the card."""
    visit.ask()
    visit.wait_for(visit.link)
    expect(visit.versions).to_be_visible()
    (made,) = visit.api.sessions.values()
    return made


# --- messages -------------------------------------------------------------------------------------


def test_a_message_becomes_the_next_version_while_the_link_stays(
    visit: Visit, app: Scripted
) -> None:
    visit.api.steps = 0
    link = visit.link.get_attribute("href")
    visit.say(BLUE)
    expect(visit.message(1)).to_contain_text(BLUE)
    expect(visit.message(1)).to_contain_text("Waiting")
    for told, percent in (
        ("Changing your app", 31),
        ("Changing your app: writing app.py", 58),
        ("Changing your app: starting it", 90),
    ):
        visit.step()
        expect(visit.progress).to_have_text(told)
        expect(visit.bar).to_have_attribute("aria-valuenow", str(percent))
        expect(visit.state).to_have_text("Changing")
        expect(visit.link).to_have_attribute("href", str(link))
        expect(visit.message(1)).to_contain_text("Being made")
    with visit.page.expect_popup() as opened:
        visit.link.click()
    expect(opened.value.get_by_role("heading")).to_have_text("It runs")
    visit.step()
    expect(visit.state).to_have_text("Ready")
    expect(visit.progress).to_have_text("Version 2 is running")
    expect(visit.message(1)).to_contain_text("Version 2")
    expect(visit.message(1)).to_contain_text(scripts.CHANGED.summary)
    expect(visit.heard()).to_contain_text("Version 2 is running.")
    assert len(app.messages) == 1


def test_nothing_is_called_done_before_the_status_says_so(visit: Visit, app: Scripted) -> None:
    visit.api.steps = 0
    visit.say(BLUE)
    for _ in scripts.CHANGED.steps[:-1]:
        visit.step()
    expect(visit.bar).to_have_attribute("aria-valuenow", "58")

    def answer_of_the_future(route: Route) -> None:
        while app.step.state != "ready":
            app.advance()
        route.continue_()

    visit.page.route("**/messages", answer_of_the_future)
    visit.api.steps = 1
    with visit.page.expect_response("**/messages"), visit.page.expect_response("**/versions"):
        visit.poll()
    assert app.messages[0]["state"] == "done"
    expect(visit.progress).to_have_text("Changing your app: starting it")
    expect(visit.message(1)).to_contain_text("Being made")
    expect(visit.version(1)).to_contain_text("Version 1")
    expect(visit.version(2)).to_have_count(0)
    visit.poll()
    expect(visit.message(1)).to_contain_text("Version 2")
    expect(visit.version(2)).to_have_count(1)


def test_a_message_to_an_app_that_is_not_there_yet_waits_for_it(visit: Visit) -> None:
    visit.api.steps = 0
    visit.ask()
    expect(visit.page.locator("#say-note")).to_have_text("It waits until your app runs.")
    visit.say(BLUE)
    expect(visit.message(1)).to_contain_text("Waiting")
    expect(visit.field).to_have_value("")
    visit.api.steps = None
    visit.wait_for(visit.message(1).get_by_text("Version 2"))


def test_a_change_that_fails_says_why_and_that_the_version_before_goes_on(
    visit: Visit, app: Scripted
) -> None:
    visit.api.courses.append(scripts.UNDONE)
    visit.say(BLUE)
    visit.wait_for(visit.message(1).get_by_text("Not done"))
    answer = visit.message(1).locator(".message-answer")
    expect(answer).to_contain_text("run well, even after")
    expect(answer).to_contain_text("Version 1 goes on.")
    expect(visit.heard()).to_contain_text("The change was not made.")
    expect(visit.state).to_have_text("Ready")
    expect(visit.progress).to_have_text("Version 1 is running")
    visit.message(1).get_by_text("What happened").click()
    expect(visit.message(1).get_by_text('KeyError: "streak"')).to_be_visible()
    visit.say(SEARCH)
    visit.wait_for(visit.message(2).get_by_text("Version 3"))
    expect(answer).to_contain_text("Version 1 went on.")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("refused", "Claude declined to make this."),
        ("provider_unavailable", "Send it again a little later."),
        ("budget_exhausted", "work is used up for now."),
        ("something_new", "It broke."),
    ],
)
def test_each_reason_is_told_in_plain_words(
    visit: Visit, app: Scripted, code: str, told: str
) -> None:
    error = {"code": code, "message": "it broke\nline 2"}
    visit.api.courses.append(Course(steps=scripts.CHANGED.steps, error=error))
    visit.say(BLUE)
    visit.wait_for(visit.message(1).get_by_text("Not done"))
    expect(visit.message(1).locator(".message-answer")).to_contain_text(told)


def test_a_failed_message_is_taken_up_again_without_losing_what_is_typed(
    visit: Visit, app: Scripted
) -> None:
    visit.api.courses.append(scripts.UNDONE)
    visit.say(BLUE)
    visit.wait_for(visit.message(1).get_by_text("Not done"))
    visit.field.fill(SEARCH)
    visit.page.get_by_role("button", name="Edit and send again").click()
    expect(visit.field).to_be_focused()
    expect(visit.field).to_have_value(f"{SEARCH}\n{BLUE}")


def test_markup_in_texts_stays_text(visit: Visit, app: Scripted) -> None:
    summary = "<b>Done</b><script>document.title = 'hacked'</script>"
    visit.api.courses.append(Course(steps=scripts.CHANGED.steps, summary=summary))
    visit.say("<img src=x onerror=alert(1)>")
    visit.wait_for(visit.message(1).get_by_text(summary))
    expect(visit.message(1)).to_contain_text("<img src=x onerror=alert(1)>")
    expect(visit.message(1).locator("img, b, script")).to_have_count(0)


def test_what_still_waited_when_the_app_ended_says_so(visit: Visit, app: Scripted) -> None:
    visit.api.steps = 0
    visit.say(BLUE)
    expect(visit.message(1)).to_contain_text("Waiting")
    visit.page.get_by_role("button", name="Delete", exact=True).click()
    visit.page.get_by_role("button", name="Delete app").click()
    visit.api.steps = None
    visit.wait_for(visit.message(1).get_by_text("The app ended before its turn came."))
    expect(visit.field).to_be_hidden()
    expect(visit.link).to_be_hidden()


# --- the field ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "members", "told"),
    [
        (422, "message_empty", {"field": "text"}, "Say what should change."),
        (422, "message_too_large", {"limit_bytes": 16384}, "Shorten it to 16 KB."),
        (422, "message_not_text", {}, "Take them out, and send it again."),
        (422, "generation_unavailable", {"setting": "ANTHROPIC_API_KEY"}, "(ANTHROPIC_API_KEY)"),
        (409, "session_ending", {}, "This app has ended, or is about to."),
        (429, "messages_full", {"limit": 5, "retry_after": 30}, "in about 30 seconds"),
        (503, "unavailable", {"retry_after": 3}, "Nothing is lost: try again in 3 seconds."),
    ],
)
def test_a_refused_message_stays_in_the_field_beside_the_reason(
    visit: Visit, app: Scripted, status: int, code: str, members: dict[str, object], told: str
) -> None:
    visit.refused = {str(status)}
    visit.api.refuse(status, code, "no", **members)
    visit.field.fill(BLUE)
    visit.page.keyboard.press("Control+Enter")
    expect(visit.page.locator("#say-error")).to_contain_text(told)
    expect(visit.field).to_have_value(BLUE)
    expect(visit.field).to_be_focused()
    expect(visit.field).to_have_attribute("aria-invalid", "true")
    visit.page.keyboard.press("Control+Enter")
    expect(visit.field).to_have_value("")
    expect(visit.page.locator("#say-error")).to_be_hidden()
    assert [one["text"] for one in app.messages] == [BLUE]
    _, refused, taken = visit.api.keys
    assert (refused == taken) == (status == 503)  # what came of it is known but after an outage


def test_a_lost_answer_does_not_send_a_message_twice(visit: Visit, app: Scripted) -> None:
    dropped: list[Route] = []

    def answer_lost(route: Route) -> None:
        if route.request.method == "POST" and not dropped:
            dropped.append(route)
            route.fetch()  # the server took it, and the page never hears of it
            route.abort("connectionreset")
        else:
            route.continue_()

    visit.drops = True
    visit.page.route("**/messages", answer_lost)
    visit.say(BLUE)
    visit.wait_for(visit.message(1))
    assert len(dropped) == 1
    assert [one["text"] for one in app.messages] == [BLUE]


def test_an_empty_message_is_complained_about_at_the_field(visit: Visit, app: Scripted) -> None:
    visit.refused = {"422"}
    visit.page.get_by_role("button", name="Send", exact=True).click()
    expect(visit.page.locator("#say-error")).to_have_text("Say what should change.")
    expect(visit.field).to_be_focused()


def test_a_sixth_message_stays_in_the_field_until_one_of_five_is_done(
    visit: Visit, app: Scripted
) -> None:
    visit.api.steps = 0
    for number in range(1, scripts.WAITING_MAX + 1):
        visit.say(f"Change {number}")
        expect(visit.message(number)).to_be_visible()
    send = visit.page.get_by_role("button", name="Send", exact=True)
    expect(send).to_have_attribute("aria-disabled", "true")
    expect(visit.page.locator("#say-note")).to_contain_text("Five wait already.")
    visit.field.fill(SEARCH)
    visit.page.keyboard.press("Control+Enter")
    expect(visit.page.locator("#say-error")).to_contain_text("Not sent.")
    expect(visit.field).to_have_value(SEARCH)
    visit.step()
    expect(send).to_have_attribute("aria-disabled", "false")
    visit.page.keyboard.press("Control+Enter")
    expect(visit.message(6)).to_contain_text(SEARCH)
    assert len(app.messages) == 6


def test_a_draft_belongs_to_its_app_and_outlives_a_reload(visit: Visit, app: Scripted) -> None:
    visit.field.fill(BLUE)
    visit.tile("todo").click()
    expect(visit.page.get_by_role("heading", name="To-do list", level=2)).to_be_focused()
    expect(visit.field).to_have_value("")
    visit.page.locator("#apps-live").get_by_role("button", name=PROMPT).click()
    expect(visit.field).to_have_value(BLUE)
    visit.reload(visit.field)
    expect(visit.field).to_have_value(BLUE)


# --- versions -------------------------------------------------------------------------------------


def test_a_restore_goes_back_and_can_be_undone_by_another(visit: Visit, app: Scripted) -> None:
    visit.say(BLUE)
    visit.wait_for(visit.message(1).get_by_text("Version 2"))
    visit.versions.click()
    expect(visit.version(2)).to_contain_text("Running")
    visit.api.steps = 0
    visit.page.get_by_role("button", name="Restore version 1").click()
    expect(visit.message(2)).to_have_text("Waiting to go back to version 1", use_inner_text=True)
    visit.step()
    expect(visit.message(2)).to_have_text("Going back to version 1…", use_inner_text=True)
    expect(visit.progress).to_have_text("Going back to version 1")
    expect(visit.link).to_be_visible()
    visit.step()
    expect(visit.message(2)).to_have_text("Went back to version 1", use_inner_text=True)
    expect(visit.version(1)).to_contain_text("Running")
    expect(visit.page.get_by_role("button", name="Restore version 1")).to_be_hidden()
    expect(visit.heard()).to_have_text("Went back to version 1.")
    visit.api.steps = None
    visit.page.get_by_role("button", name="Restore version 2").click()
    visit.wait_for(visit.message(3).get_by_text("Went back to version 2"))
    expect(visit.version(2)).to_contain_text("Running")


def test_a_refused_restore_says_why_and_can_be_asked_for_again(visit: Visit, app: Scripted) -> None:
    visit.say(BLUE)
    visit.wait_for(visit.message(1).get_by_text("Version 2"))
    visit.versions.click()
    visit.refused = {"429"}
    visit.api.refuse(429, "messages_full", "no more", limit=5, retry_after=30)
    restore = visit.page.get_by_role("button", name="Restore version 1")
    restore.click()
    expect(visit.page.locator("#versions-error")).to_contain_text("Five changes wait already.")
    expect(restore).to_have_attribute("aria-disabled", "false")
    restore.click()
    visit.wait_for(visit.message(2).get_by_text("Went back to version 1"))
    expect(visit.page.locator("#versions-error")).to_be_hidden()


def test_a_version_that_never_ran_well_can_only_be_downloaded(visit: Visit, app: Scripted) -> None:
    visit.api.courses.append(scripts.UNDONE)
    visit.say(BLUE)
    visit.wait_for(visit.message(1).get_by_text("Not done"))
    visit.versions.click()
    expect(visit.version(2).get_by_text("Never ran well")).to_be_visible()
    expect(visit.version(1).get_by_text("Never ran well")).to_be_hidden()
    download = visit.page.get_by_role("link", name="Download version 2")
    expect(download).to_have_attribute("href", f"/api/sessions/{app.id}/bundle?version=2")
    expect(visit.version(2).get_by_role("button")).to_have_count(0)


def test_each_version_tells_what_it_is_and_who_served_it(visit: Visit) -> None:
    visit.tile("todo").click()
    visit.wait_for(visit.link)
    visit.say(BLUE)
    visit.wait_for(visit.message(1).get_by_text("Version 2"))
    visit.versions.click()
    expect(visit.version(1)).to_contain_text("template")
    expect(visit.version(2)).to_contain_text("made by Claude · 12 KB")
    expect(visit.version(2)).to_contain_text(scripts.CHANGED.summary)
    newest_first = [
        row.get_attribute("data-version") for row in visit.page.locator(".version").all()
    ]
    assert newest_first == ["2", "1"]


# --- what is asked of the server ------------------------------------------------------------------


def test_progress_alone_has_nothing_loaded_again(visit: Visit, app: Scripted) -> None:
    visit.api.steps = 0
    visit.say(BLUE)
    with visit.page.expect_response("**/usage"):
        visit.step()
    before = list(visit.api.reads)
    visit.step()  # 31 % -> 58 %
    expect(visit.bar).to_have_attribute("aria-valuenow", "58")
    polls = visit.polls
    visit.wait_until(lambda: visit.polls >= polls + 3)
    assert visit.api.reads == before
    with visit.page.expect_response("**/usage"):
        visit.step()  # deploying
    assert sorted(visit.api.reads[len(before) :]) == ["messages", "usage", "versions"]


def test_a_waiting_change_is_asked_about_as_often_as_one_under_way(
    visit: Visit, app: Scripted
) -> None:
    visit.say(BLUE)
    expect(visit.message(1)).to_contain_text("Waiting")
    visit.poll()
    expect(visit.message(1)).to_contain_text("Being made")


def test_a_running_app_that_nobody_changes_has_nothing_loaded_again(
    visit: Visit, app: Scripted
) -> None:
    before = list(visit.api.reads)
    seen = visit.api.not_modified
    visit.wait_until(lambda: visit.api.not_modified >= seen + 2)
    assert visit.api.reads == before


def test_lists_that_an_outage_kept_back_come_by_themselves(visit: Visit, app: Scripted) -> None:
    visit.refused = {"503"}
    visit.page.route("**/usage", lambda route: route.fulfill(status=503, json={}))
    visit.say(BLUE)
    visit.wait_until(lambda: visit.state.inner_text() == "Ready" and app.version == 2)
    expect(visit.versions).to_have_text("Versions 1")
    visit.page.unroute("**/usage")
    visit.wait_for(visit.page.get_by_text("Versions 2"))
    expect(visit.message(1)).to_contain_text("Version 2")


# --- cost, reuse, offers --------------------------------------------------------------------------


def test_what_claude_cost_is_told_once_claude_was_asked(visit: Visit) -> None:
    usage = visit.page.locator("#usage")
    visit.tile("todo").click()
    visit.wait_for(visit.versions)
    expect(usage).to_be_hidden()
    visit.say(BLUE)
    visit.wait_for(usage)
    expect(usage).to_have_text(re.compile("^Claude.s work: [$]0[.]012, 4 calls$"))


def test_a_reused_app_says_so_and_can_be_made_anew(visit: Visit) -> None:
    visit.api.reuses = True
    visit.ask()
    visit.wait_for(visit.page.get_by_text("Made from an earlier, equal prompt."))
    visit.page.get_by_role("button", name="Make it anew").click()
    expect(visit.page.locator("#apps-live .row")).to_have_count(2)
    visit.wait_for(visit.link)
    expect(visit.page.get_by_text("Made from an earlier, equal prompt.")).to_be_hidden()
    first, second = visit.api.asked
    assert "fresh" not in first
    assert (second["prompt"], second["template"], second["fresh"]) == (PROMPT, None, True)


def test_a_template_is_offered_where_claude_could_not_be_asked(visit: Visit) -> None:
    visit.api.scripts.append(scripts.UNANSWERED)
    visit.ask()
    offer = visit.page.get_by_role("button", name="Start Kanban board instead")
    visit.wait_for(offer)
    assert len(visit.api.sessions) == 1
    expect(visit.page.get_by_role("button", name="Try again")).to_be_visible()
    offer.click()
    visit.wait_for(visit.link)
    expect(visit.page.get_by_role("heading", name="Kanban board", level=2)).to_be_visible()
    expect(offer).to_be_hidden()
    assert (visit.api.asked[-1]["prompt"], visit.api.asked[-1]["template"]) == ("", "kanban")


# --- for everybody --------------------------------------------------------------------------------


def test_the_conversation_needs_no_mouse(visit: Visit, app: Scripted) -> None:
    keys = visit.page.keyboard
    visit.field.focus()
    keys.insert_text(BLUE)
    keys.press("Control+Enter")
    visit.wait_for(visit.message(1).get_by_text("Version 2"))
    expect(visit.field).to_be_focused()
    _tab_to(visit, visit.versions)
    keys.press("Enter")
    _tab_to(visit, visit.page.get_by_role("button", name="Restore version 1"))
    keys.press("Enter")
    visit.wait_for(visit.message(2).get_by_text("Went back to version 1"))
    expect(visit.versions).to_be_focused()  # the button is gone


def _tab_to(visit: Visit, wanted: Locator) -> None:
    for _ in range(12):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        visit.page.keyboard.press("Tab")
    raise AssertionError(f"Tab never reached {wanted}")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_moves_the_field_while_a_change_is_made(
    visit: Visit, app: Scripted, width: int
) -> None:
    visit.page.set_viewport_size({"width": width, "height": 900})
    visit.api.steps = 0
    conversation = _top(visit, "talk")
    visit.say(BLUE)
    expect(visit.message(1)).to_contain_text("Waiting")
    field = _top(visit, "say-text")
    for _ in scripts.CHANGED.steps:
        visit.step()
        expect(visit.message(1)).to_contain_text("Being made")
        assert (_top(visit, "talk"), _top(visit, "say-text")) == (conversation, field)


def _top(visit: Visit, element: str) -> float:
    within = f"document.getElementById('{element}').getBoundingClientRect().top"
    return float(visit.page.evaluate(f"{within} + scrollY"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_narrowest_phone_needs_no_sideways_scrolling(visit: Visit, scheme: str) -> None:
    visit.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    visit.page.set_viewport_size({"width": 360, "height": 640})
    visit.api.reuses = True
    word = "averyveryverylongwordthatnothingbreaks" * 4
    visit.api.courses.append(Course(steps=scripts.CHANGED.steps, summary=word))
    visit.api.courses.append(scripts.UNDONE)
    visit.ask()
    visit.wait_for(visit.link)
    visit.say(word)
    visit.say(word)
    visit.wait_for(visit.message(2).get_by_text("Not done"))
    visit.versions.click()
    visit.message(2).get_by_text("What happened").click()
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 360
    conversation = visit.page.locator("#messages")
    assert conversation.evaluate("list => list.scrollWidth === list.clientWidth")
