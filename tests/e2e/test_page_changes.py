"""The page in a real browser while an app is changed: messages, the field, keyboard and layout."""

from __future__ import annotations

import pytest
from playwright.sync_api import Route, expect

from tests.e2e.visit import BLUE, PROMPT, SEARCH, Visit
from tests.fakes.page import scripts
from tests.fakes.page.scripts import Course, Scripted

# --- messages -------------------------------------------------------------------------------------


def test_a_message_becomes_the_next_version_while_the_link_stays(
    visit: Visit, app: Scripted
) -> None:
    visit.api.steps = 0
    link = visit.link.get_attribute("href")
    visit.send(BLUE)
    expect(visit.message(1)).to_contain_text(BLUE)
    expect(visit.message(1)).to_contain_text("Waiting")
    for message, percent in (
        ("Changing your app", 31),
        ("Changing your app: writing app.py", 58),
        ("Changing your app: starting it", 90),
    ):
        visit.step()
        expect(visit.progress).to_have_text(message)
        expect(visit.bar).to_have_attribute("aria-valuenow", str(percent))
        expect(visit.state).to_have_text("Changing")
        expect(visit.link).to_have_attribute("href", str(link))
        expect(visit.message(1)).to_contain_text("Being made")
    with visit.page.expect_popup() as popup:
        visit.link.click()
    expect(popup.value.get_by_role("heading")).to_have_text("It runs")
    visit.step()
    expect(visit.state).to_have_text("Ready")
    expect(visit.progress).to_have_text("Version 2 is running")
    expect(visit.message(1)).to_contain_text("Version 2")
    expect(visit.message(1)).to_contain_text(scripts.CHANGED.summary)
    expect(visit.announcement()).to_contain_text("Version 2 is running.")
    assert len(app.messages) == 1


def test_nothing_is_called_done_before_the_status_says_so(visit: Visit, app: Scripted) -> None:
    visit.api.steps = 0
    visit.send(BLUE)
    for _ in scripts.CHANGED.steps[:-1]:
        visit.step()
    expect(visit.bar).to_have_attribute("aria-valuenow", "58")

    def respond_with_later_state(route: Route) -> None:
        while app.step.state != "ready":
            app.advance()
        route.continue_()

    visit.page.route("**/messages", respond_with_later_state)
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
    visit.submit()
    expect(visit.page.locator("#say-note")).to_have_text("It waits until your app runs.")
    visit.send(BLUE)
    expect(visit.message(1)).to_contain_text("Waiting")
    expect(visit.field).to_have_value("")
    visit.api.steps = None
    visit.wait_for(visit.message(1).get_by_text("Version 2"))


def test_a_change_that_fails_says_why_and_that_the_version_before_goes_on(
    visit: Visit, app: Scripted
) -> None:
    visit.api.courses.append(scripts.UNDONE)
    visit.send(BLUE)
    visit.wait_for(visit.message(1).get_by_text("Not done"))
    answer = visit.message(1).locator(".message-answer")
    expect(answer).to_contain_text("run well.")
    expect(answer).to_contain_text("Version 1 goes on.")
    expect(visit.announcement()).to_contain_text("The change was not made.")
    expect(visit.state).to_have_text("Ready")
    expect(visit.progress).to_have_text("Version 1 is running")
    visit.message(1).get_by_text("What happened").click()
    expect(visit.message(1).get_by_text('KeyError: "streak"')).to_be_visible()
    visit.send(SEARCH)
    visit.wait_for(visit.message(2).get_by_text("Version 3"))
    expect(answer).to_contain_text("Version 1 went on.")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("refused", "Claude declined to make this."),
        ("provider_unavailable", "Send it again a little later."),
        ("budget_exhausted", "work is used up for now."),
        ("provider_no_credit", "Claude has no credit left."),
        ("no_room", "There is no room for a second copy of the app"),
        ("something_new", "It broke."),
    ],
)
def test_each_reason_is_told_in_plain_words(
    visit: Visit, app: Scripted, code: str, text: str
) -> None:
    error = {"code": code, "message": "it broke\nline 2"}
    visit.api.courses.append(Course(steps=scripts.CHANGED.steps, error=error))
    visit.send(BLUE)
    visit.wait_for(visit.message(1).get_by_text("Not done"))
    expect(visit.message(1).locator(".message-answer")).to_contain_text(text)


def test_a_failed_message_is_taken_up_again_without_losing_what_is_typed(
    visit: Visit, app: Scripted
) -> None:
    visit.api.courses.append(scripts.UNDONE)
    visit.send(BLUE)
    visit.wait_for(visit.message(1).get_by_text("Not done"))
    visit.field.fill(SEARCH)
    visit.page.get_by_role("button", name="Edit and send again").click()
    expect(visit.field).to_be_focused()
    expect(visit.field).to_have_value(f"{SEARCH}\n{BLUE}")


def test_markup_in_texts_stays_text(visit: Visit, app: Scripted) -> None:
    summary = "<b>Done</b><script>document.title = 'hacked'</script>"
    visit.api.courses.append(Course(steps=scripts.CHANGED.steps, summary=summary))
    visit.send("<img src=x onerror=alert(1)>")
    visit.wait_for(visit.message(1).get_by_text(summary))
    expect(visit.message(1)).to_contain_text("<img src=x onerror=alert(1)>")
    expect(visit.message(1).locator("img, b, script")).to_have_count(0)


def test_what_still_waited_when_the_app_ended_says_so(visit: Visit, app: Scripted) -> None:
    visit.api.steps = 0
    visit.send(BLUE)
    expect(visit.message(1)).to_contain_text("Waiting")
    visit.page.get_by_role("button", name="Delete", exact=True).click()
    visit.page.get_by_role("button", name="Delete app").click()
    visit.api.steps = None
    visit.wait_for(visit.message(1).get_by_text("The app ended before its turn came."))
    expect(visit.field).to_be_hidden()
    expect(visit.link).to_be_hidden()


# --- the field ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "members", "text"),
    [
        (422, "message_empty", {"field": "text"}, "Say what should change."),
        (422, "message_too_large", {"limit_bytes": 16384}, "Shorten it to 16 KB."),
        (422, "message_not_text", {}, "Take them out, and send it again."),
        (409, "generation_unavailable", {"setting": "ANTHROPIC_API_KEY"}, "(ANTHROPIC_API_KEY)"),
        (409, "session_ending", {}, "This app has ended, or is about to."),
        (429, "messages_full", {"limit": 5, "retry_after": 30}, "in about 30 seconds"),
        (503, "unavailable", {"retry_after": 3}, "Nothing is lost: try again in 3 seconds."),
    ],
)
def test_a_refused_message_stays_in_the_field_beside_the_reason(
    visit: Visit, app: Scripted, status: int, code: str, members: dict[str, object], text: str
) -> None:
    visit.expected_statuses = {str(status)}
    visit.api.refuse(status, code, "no", **members)
    visit.field.fill(BLUE)
    visit.page.keyboard.press("Control+Enter")
    expect(visit.page.locator("#say-error")).to_contain_text(text)
    expect(visit.field).to_have_value(BLUE)
    expect(visit.field).to_be_focused()
    expect(visit.field).to_have_attribute("aria-invalid", "true")
    visit.page.keyboard.press("Control+Enter")
    expect(visit.field).to_have_value("")
    expect(visit.page.locator("#say-error")).to_be_hidden()
    assert [message["text"] for message in app.messages] == [BLUE]
    _, refused_key, accepted_key = visit.api.keys
    # Only after a 503 is the outcome unknown, so that the page repeats the key.
    assert (refused_key == accepted_key) == (status == 503)


def test_a_lost_answer_does_not_send_a_message_twice(visit: Visit, app: Scripted) -> None:
    dropped: list[Route] = []

    def lose_first_response(route: Route) -> None:
        if route.request.method == "POST" and not dropped:
            dropped.append(route)
            route.fetch()  # the server accepts the message, but the page gets no response
            route.abort("connectionreset")
        else:
            route.continue_()

    visit.drops_connections = True
    visit.page.route("**/messages", lose_first_response)
    visit.send(BLUE)
    visit.wait_for(visit.message(1))
    assert len(dropped) == 1
    assert [message["text"] for message in app.messages] == [BLUE]


def test_an_empty_message_is_complained_about_at_the_field(visit: Visit, app: Scripted) -> None:
    visit.expected_statuses = {"422"}
    visit.page.get_by_role("button", name="Send", exact=True).click()
    expect(visit.page.locator("#say-error")).to_have_text("Say what should change.")
    expect(visit.field).to_be_focused()


def test_a_sixth_message_stays_in_the_field_until_one_of_five_is_done(
    visit: Visit, app: Scripted
) -> None:
    visit.api.steps = 0
    for number in range(1, scripts.WAITING_MAX + 1):
        visit.send(f"Change {number}")
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


# --- keyboard and layout --------------------------------------------------------------------------


def test_the_conversation_needs_no_mouse(visit: Visit, app: Scripted) -> None:
    keys = visit.page.keyboard
    visit.field.focus()
    keys.insert_text(BLUE)
    keys.press("Control+Enter")
    visit.wait_for(visit.message(1).get_by_text("Version 2"))
    expect(visit.field).to_be_focused()
    visit.tab_to(visit.versions)
    keys.press("Enter")
    visit.tab_to(visit.page.get_by_role("button", name="Restore version 1"))
    keys.press("Enter")
    visit.wait_for(visit.message(2).get_by_text("Went back to version 1"))
    expect(visit.versions).to_be_focused()  # its button is gone


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_moves_the_field_while_a_change_is_made(
    visit: Visit, app: Scripted, width: int
) -> None:
    visit.page.set_viewport_size({"width": width, "height": 900})
    visit.api.steps = 0
    conversation = _top(visit, "talk")
    visit.send(BLUE)
    expect(visit.message(1)).to_contain_text("Waiting")
    field = _top(visit, "say-text")
    for _ in scripts.CHANGED.steps:
        visit.step()
        expect(visit.message(1)).to_contain_text("Being made")
        assert (_top(visit, "talk"), _top(visit, "say-text")) == (conversation, field)


def _top(visit: Visit, element: str) -> float:
    top = f"document.getElementById('{element}').getBoundingClientRect().top"
    return float(visit.page.evaluate(f"{top} + scrollY"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_narrowest_phone_needs_no_sideways_scrolling(visit: Visit, scheme: str) -> None:
    visit.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    visit.page.set_viewport_size({"width": 360, "height": 640})
    visit.api.reuses = True
    word = "averyveryverylongwordthatnothingbreaks" * 4
    visit.api.courses.append(Course(steps=scripts.CHANGED.steps, summary=word))
    visit.api.courses.append(scripts.UNDONE)
    visit.submit()
    visit.wait_for(visit.link)
    visit.send(word)
    visit.send(word)
    visit.wait_for(visit.message(2).get_by_text("Not done"))
    visit.versions.click()
    visit.message(2).get_by_text("What happened").click()
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 360
    conversation = visit.page.locator("#messages")
    assert conversation.evaluate("list => list.scrollWidth === list.clientWidth")
