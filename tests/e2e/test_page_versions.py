"""The page in a real browser: the versions of an app, the cost, offers, and what the page loads."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.e2e.visit import BLUE, PROMPT, Visit
from tests.fakes.page import scripts
from tests.fakes.page.scripts import Scripted

# --- versions -------------------------------------------------------------------------------------


def test_a_restore_goes_back_and_can_be_undone_by_another(visit: Visit, app: Scripted) -> None:
    visit.send(BLUE)
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
    expect(visit.announcement()).to_have_text("Went back to version 1.")
    visit.api.steps = None
    visit.page.get_by_role("button", name="Restore version 2").click()
    visit.wait_for(visit.message(3).get_by_text("Went back to version 2"))
    expect(visit.version(2)).to_contain_text("Running")


def test_a_refused_restore_says_why_and_can_be_asked_for_again(visit: Visit, app: Scripted) -> None:
    visit.send(BLUE)
    visit.wait_for(visit.message(1).get_by_text("Version 2"))
    visit.versions.click()
    visit.expected_statuses = {"429"}
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
    visit.send(BLUE)
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
    visit.send(BLUE)
    visit.wait_for(visit.message(1).get_by_text("Version 2"))
    visit.versions.click()
    expect(visit.version(1)).to_contain_text("template")
    expect(visit.version(2)).to_contain_text("made by Claude · 12 KB")
    expect(visit.version(2)).to_contain_text(scripts.CHANGED.summary)
    newest_first = [
        row.get_attribute("data-version") for row in visit.page.locator(".version").all()
    ]
    assert newest_first == ["2", "1"]


# --- requests to the server -----------------------------------------------------------------------


def test_progress_alone_has_nothing_loaded_again(visit: Visit, app: Scripted) -> None:
    visit.api.steps = 0
    reads = visit.api.reads
    count = len(reads)
    visit.send(BLUE)
    visit.wait_until(lambda: len(reads) == count + 3)  # the history, with the new message
    visit.step()
    visit.wait_until(lambda: len(reads) == count + 6)  # again, with the change that began
    visit.step()  # 31 % -> 58 %
    expect(visit.bar).to_have_attribute("aria-valuenow", "58")
    polls = visit.polls
    visit.wait_until(lambda: visit.polls >= polls + 3)
    assert len(reads) == count + 6
    visit.step()  # deploying
    visit.wait_until(lambda: len(reads) == count + 9)
    assert sorted(reads[-3:]) == ["messages", "usage", "versions"]


def test_a_waiting_change_is_asked_about_as_often_as_one_under_way(
    visit: Visit, app: Scripted
) -> None:
    visit.send(BLUE)
    expect(visit.message(1)).to_contain_text("Waiting")
    visit.poll()
    expect(visit.message(1)).to_contain_text("Being made")


def test_a_running_app_that_nobody_changes_has_nothing_loaded_again(
    visit: Visit, app: Scripted
) -> None:
    before = list(visit.api.reads)
    count = visit.api.not_modified
    visit.wait_until(lambda: visit.api.not_modified >= count + 2)
    assert visit.api.reads == before


def test_lists_that_an_outage_kept_back_come_by_themselves(visit: Visit, app: Scripted) -> None:
    visit.expected_statuses = {"503"}
    visit.page.route("**/usage", lambda route: route.fulfill(status=503, json={}))
    visit.send(BLUE)
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
    visit.send(BLUE)
    visit.wait_for(usage)
    expect(usage).to_have_text(re.compile("^Claude.s work: [$]0[.]012, 4 calls$"))


def test_a_reused_app_says_so_and_can_be_made_anew(visit: Visit) -> None:
    visit.api.reuses = True
    visit.submit()
    visit.wait_for(visit.page.get_by_text("Made from an earlier, equal prompt."))
    visit.page.get_by_role("button", name="Make it anew").click()
    expect(visit.page.locator("#apps-live .row")).to_have_count(2)
    visit.wait_for(visit.link)
    expect(visit.page.get_by_text("Made from an earlier, equal prompt.")).to_be_hidden()
    first, second = visit.api.session_requests
    assert "fresh" not in first
    assert (second["prompt"], second["template"], second["fresh"]) == (PROMPT, None, True)


def test_an_earlier_app_of_a_long_prompt_is_made_again_from_all_of_it(visit: Visit) -> None:
    """The list has the beginning of a long prompt only."""
    prompt = f"{PROMPT} " + "and more of it " * 50
    visit.api.scripts.append(scripts.UNANSWERED)
    visit.submit(prompt)
    again = visit.page.get_by_role("button", name="Try again")
    visit.wait_for(again)
    (session,) = visit.api.sessions
    visit.reload(visit.page.locator("#apps-earlier"))
    visit.page.locator("#apps-earlier > summary").click()
    visit.page.locator(f'[data-session="{session}"] .row-show').click()
    visit.page.get_by_role("button", name="Edit the prompt").click()
    expect(visit.page.get_by_label("What should it be?")).to_have_value(prompt)
    again.click()
    expect(visit.page.locator("#apps-live .row")).to_have_count(1)
    assert visit.api.session_requests[-1]["prompt"] == prompt


def test_a_template_is_offered_where_claude_could_not_be_asked(visit: Visit) -> None:
    visit.api.scripts.append(scripts.UNANSWERED)
    visit.submit()
    offer = visit.page.get_by_role("button", name="Start Kanban board instead")
    visit.wait_for(offer)
    assert len(visit.api.sessions) == 1
    expect(visit.page.get_by_role("button", name="Try again")).to_be_visible()
    offer.click()
    visit.wait_for(visit.link)
    expect(visit.page.get_by_role("heading", name="Kanban board", level=2)).to_be_visible()
    expect(offer).to_be_hidden()
    request = visit.api.session_requests[-1]
    assert (request["prompt"], request["template"]) == ("", "kanban")
