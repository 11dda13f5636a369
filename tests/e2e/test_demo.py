"""`make demo`: the whole system works without a key, and says that it is a demo."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.e2e.installation import free_ports, installed
from tests.e2e.visit import chromium, load_with_retries


def test_a_demo_makes_an_app_from_any_prompt_and_says_that_answers_are_canned() -> None:
    with installed("--demo", SPAWN_DEMO_PORT=str(free_ports(1)[0])) as demo:
        session = demo.create("Something for my plants")
        ready = demo.wait_for(session["session_id"], "ready", "failed", within_s=120)
        assert ready["status"] == "ready", (ready, demo.logs())
        assert "<h1>Something for my plants</h1>" in demo.call_app(ready["url"]).text

        page = demo.call("GET", "/").text
        assert '<p class="notice warn">This is a demo: answers are canned' in page
        assert "canned" in demo.call("GET", "/ready").json["checks"]["claude"]["detail"]
        for options in ((), ("--demo",)):
            banner = demo.spawnctl("up", "--detach", *options).stdout
            assert "\nClaude     demo: answers are canned\n" in banner, "it runs already"


def test_a_change_of_the_canned_app_is_seen_on_its_page() -> None:
    with installed("--demo", SPAWN_DEMO_PORT=str(free_ports(1)[0])) as demo:
        session = demo.create("Something for my cats")
        ready = demo.wait_for(session["session_id"], "ready", "failed", within_s=120)
        demo.spawnctl("sessions", "message", session["session_id"], "and for my <dogs>")
        with chromium() as browser:
            page = browser.new_page()
            load_with_retries(lambda: page.goto(ready["url"]))
            expect(page.get_by_role("main")).to_contain_text("and for my <dogs>")
            expect(page.get_by_role("status")).to_have_text("0 left to do")
