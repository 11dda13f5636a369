"""What counts as health, whatever the app answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agent.generator.checker import Checker
from agent.generator.progress import Progress

from tests.fakes.agents.agent import FakeAgent

HEALTHY = "The app runs: / shows a page, and everything that the page loads exists."
EVERYBODY = ", which is what everybody sees who opens the app: show a page there."


@pytest.fixture
def agent(tmp_path: Path) -> FakeAgent:
    (tmp_path / "spawn.json").write_text('{"kind": "static"}')
    (tmp_path / "index.html").write_text("app")
    agent = FakeAgent(tmp_path)
    agent.ask("start")
    agent.questions.clear()
    return agent


def check(agent: FakeAgent) -> str:
    progress = Progress(expected_tokens=100, on_change=lambda _, __: None)
    return str(Checker(agent, progress).check())


def redirect(target: str) -> dict[str, Any]:
    return {"status": 302, "headers": {"location": target}}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, HEALTHY),
        ({"status": 404}, f"GET / answers 404{EVERYBODY}"),
        ({"problem": "no whole answer", "status": 0}, "GET / fails: no whole answer."),
        (redirect("http://elsewhere.example/"), HEALTHY),
        (redirect("http://sandbox:3001/"), "GET / redirects to http://sandbox:3001/, which visit"),
        ({"body": ""}, "GET / answers 200 and nothing else: show a page there."),
        ({"body": "", "is_whole": False}, HEALTHY),
        ({"unreadable": "gzip"}, "GET / says Content-Encoding: gzip, and its body is something"),
        ({"is_endless": True, "path": "/"}, f"{HEALTHY} / was still being sent after 2 s."),
        (
            {"status": 401, "headers": {"www-authenticate": "Bearer"}},
            "GET / answers 401 with WWW-Authenticate: Bearer, for which no browser asks",
        ),
        (redirect("http://localhost:3001/"), "GET / redirects to http://localhost:3001/, which is"),
        ({"status": 302}, "GET / answers 302 without a Location."),
        ({"status": 401, "headers": {"www-authenticate": "Basic"}}, HEALTHY),
        ({"headers": {"location": "/other"}}, HEALTHY),
        ({"status": 404, "headers": {"location": "/other"}}, f"GET / answers 404{EVERYBODY}"),
        ({"headers": {"content-type": "text/plain"}, "body": "<img src=no.png>"}, HEALTHY),
    ],
)
def test_the_first_page_shows_or_leads_to_one_that_does(
    agent: FakeAgent, fields: dict[str, Any], says: str
) -> None:
    agent.pages["/"] = fields

    assert check(agent).startswith(says)
    assert [question["paths"] for question in agent.questions] == [["/"]]
    assert agent.questions[0]["max_bytes"] == 512 * 1024


def test_a_refresh_is_followed_as_a_browser_does(agent: FakeAgent) -> None:
    agent.pages["/"] = {"body": '<meta http-equiv="refresh" content="0; url=/missing">'}
    assert check(agent).startswith("GET /missing, where the refresh of / leads, answers 404")
    agent.pages["/"] = {"headers": {"refresh": "1; url=/index.html"}}
    assert check(agent) == HEALTHY


def test_parts_that_have_no_end_or_are_unreadable_are_told(
    agent: FakeAgent, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("<img src=/a.png><script src=/b.js></script>")
    (tmp_path / "a.png").write_text("")
    (tmp_path / "b.js").write_text("")
    agent.pages["/a.png"] = {"is_endless": True}
    assert check(agent) == f"{HEALTHY} /a.png was still being sent after 2 s."
    agent.pages["/b.js"] = {"unreadable": "deflate"}
    assert "/b.js, which / needs, says Content-Encoding: deflate, and its b" in check(agent)


def test_redirects_are_followed_but_not_for_ever(agent: FakeAgent) -> None:
    agent.pages["/"] = redirect("/index.html")
    assert check(agent) == HEALTHY
    agent.questions.clear()
    agent.pages["/"] = redirect("/")

    assert check(agent).startswith("GET / comes after more than 4 redirects.")
    assert len(agent.questions) == 5


def test_cookies_go_back_to_the_app_with_the_next_page_and_its_parts(
    agent: FakeAgent, tmp_path: Path
) -> None:
    (tmp_path / "page").write_text("<script src=/a.js></script>")
    (tmp_path / "a.js").write_text("")
    cookies = ["sid=1; Path=/", "lang=en"]
    agent.pages["/"] = {**redirect("/page"), "cookies": cookies}
    agent.pages["/page"] = {"headers": {"content-type": "text/html"}, "cookies": ["sid=2; Path=/"]}

    assert check(agent) == HEALTHY
    assert [(question["paths"], question["cookie"]) for question in agent.questions] == [
        (["/"], ""),
        (["/page"], "sid=1; lang=en"),
        (["/a.js"], "sid=2; lang=en"),
    ]


def test_an_app_that_ended_after_its_answer_is_not_healthy(agent: FakeAgent) -> None:
    agent.ended = "exited with status 1"
    assert check(agent).startswith("The app exited with status 1.")
    agent.pages["/"] = {"status": 500}
    assert check(agent).startswith("GET / answers 500.")


def test_an_app_that_does_not_run_has_no_page(tmp_path: Path) -> None:
    assert check(FakeAgent(tmp_path)).startswith("GET / fails: the app was not started.")


def test_each_asset_is_asked_for_once_and_few_of_many(agent: FakeAgent, tmp_path: Path) -> None:
    images = "".join(f"<img src={number}.png>" for number in range(100))
    (tmp_path / "index.html").write_text(f"<link rel=stylesheet href=s.css>{images}")
    sheet = [f"a{{b:url({number}.png)}} c{{d:url(s{number}.png)}}" for number in range(100)]
    (tmp_path / "s.css").write_text("".join(sheet))
    check(agent)
    _, of_page, of_sheet = agent.questions

    assert of_page["paths"] == ["/s.css", *(f"/{number}.png" for number in range(59))]
    assert len(of_sheet["paths"]) == 60
    assert not set(of_page["paths"]) & set(of_sheet["paths"])
    assert (of_page["max_bytes"], of_sheet["max_bytes"]) == (512 * 1024, 512 * 1024)
    assert [question["navigates"] for question in agent.questions] == [True, False, False]


def test_what_the_parts_of_a_page_load_exists_too(agent: FakeAgent, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        "<script type=module src=a.js></script><link rel=stylesheet href=a.css>"
    )
    (tmp_path / "a.js").write_text("import './b.js'; import './a.js'")
    (tmp_path / "b.js").write_text("import './a.js'; import './no.js'")
    (tmp_path / "a.css").write_text("@import 'no.css';")

    assert check(agent).startswith(
        "/no.css, which /a.css needs, answers 404. /no.js, which /b.js needs, answers 404.\n"
    )
    assert [question["paths"] for question in agent.questions[1:]] == [
        ["/a.js", "/a.css"],
        ["/b.js", "/no.css"],
        ["/no.js"],
    ]


def test_an_asset_that_fails_or_is_refused_is_bad_health(agent: FakeAgent, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<img src=a.png><img src=b.png><img src=c.png>")
    agent.pages["/a.png"] = {"status": 0, "problem": "no whole answer"}
    agent.pages["/b.png"] = {"status": 400}
    agent.pages["/c.png"] = {"status": 399}

    assert check(agent).startswith(
        "/a.png, which / needs, fails: no whole answer. /b.png, which / needs, answers 400.\n"
    )


def test_the_last_error_in_the_log_comes_first(agent: FakeAgent) -> None:
    agent.pages["/"] = {"status": 500}
    agent.console = "KeyError: 'b'\n  KeyError: 'a'\nat line 5"
    text = check(agent)

    assert text.startswith("KeyError: 'a' (GET / answers 500.)\n")
    assert text.endswith(f":\n{agent.console}")
    agent.console = "all is well"
    assert check(agent).startswith("GET / answers 500")


def test_at_its_public_address_the_app_is_opened_once(agent: FakeAgent) -> None:
    checker = Checker(agent, Progress(expected_tokens=100, on_change=lambda _, __: None))
    assert checker.open().healthy
    agent.public_problems = ["GET / has no answer after 10 s."]
    agent.console = "ValueError: x"

    verdict = checker.open()
    assert verdict.reason.startswith("ValueError: x (At its public address, ")
    assert "GET / has no answer after 10 s." in verdict.reason
    assert [question["ask"] for question in agent.questions] == ["open", "open"]
