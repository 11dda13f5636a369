"""The one rule for "this app is well", as data: answers and what they mean."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.contract import health
from orchestrator.contract.front_pages import FrontPage
from orchestrator.contract.health import REDIRECTS_MAX, Answer, Condition, Finding, Walk
from orchestrator.contract.wire import ProtocolError, parse_finding, parse_secret

HOST = "abc.apps.localhost:8080"


def walk(*answers: Answer, host: str = HOST) -> tuple[Finding | None, list[str]]:
    """The finding, and the paths that were asked for."""
    walking, paths, finding = Walk(host), [], None
    for answer in answers:
        assert finding is None
        paths.append(walking.path)
        finding = walking.take(answer)
    return finding, paths


def redirect(location: str, status: int = 302) -> Answer:
    return Answer(status=status, location=location)


@pytest.mark.parametrize(
    ("answer", "condition"),
    [
        (Answer(status=200), Condition.WELL),
        (Answer(status=204), Condition.WELL),
        (Answer(status=200, is_empty=True), Condition.UNWELL),
        (Answer(status=204, is_empty=True), Condition.WELL),
        (Answer(status=200, unreadable="gzip"), Condition.UNWELL),
        (Answer(status=200, refresh="/"), Condition.WELL),
        (Answer(status=200, refresh="https://elsewhere.example/"), Condition.WELL),
        (Answer(status=200, refresh="http://localhost:3001/"), Condition.UNWELL),
        (Answer(status=200, refresh="javascript:alert(1)"), Condition.WELL),
        (Answer(status=401, challenge='Basic realm="App"'), Condition.WELL),
        (Answer(status=401, challenge="Bearer, Negotiate"), Condition.WELL),
        (Answer(status=401, challenge="digest realm=x"), Condition.WELL),
        (Answer(status=401, challenge="Bearer"), Condition.UNWELL),
        (Answer(status=401, challenge='Bearer realm="basic"'), Condition.UNWELL),
        (Answer(status=401), Condition.UNWELL),
        (Answer(status=403), Condition.UNWELL),
        (Answer(status=404), Condition.UNWELL),
        (Answer(status=404, location="/x"), Condition.UNWELL),
        (Answer(status=500), Condition.UNWELL),
        (Answer(status=503), Condition.UNWELL),
        (Answer(status=302), Condition.UNWELL),
        (Answer(status=304), Condition.UNWELL),
        (redirect("https://elsewhere.example/login"), Condition.WELL),
        (redirect("//elsewhere.example"), Condition.WELL),
        (redirect("http://def.apps.localhost:8080/"), Condition.WELL),
        (redirect("http://93.184.216.34/"), Condition.WELL),
        (redirect("mailto:somebody@example.org"), Condition.UNWELL),
        (redirect("javascript:alert(1)"), Condition.UNWELL),
        (redirect("http://sandbox:3001/login"), Condition.UNWELL),
        (redirect("http://172.17.0.3:3001/login"), Condition.UNWELL),
        (redirect("https://10.0.0.1/"), Condition.UNWELL),
        (redirect("http://[fd00::1]/"), Condition.UNWELL),
        (redirect("http://localhost:3001/login"), Condition.UNWELL),
        (redirect("http://127.0.0.1:3001/"), Condition.UNWELL),
        (redirect("http://[::1]:3001/"), Condition.UNWELL),
        (redirect("http://0.0.0.0:3001/"), Condition.UNWELL),
        (redirect("http://["), Condition.UNWELL),
        (redirect(f"https://{HOST}/"), Condition.UNWELL),
        (Answer(status=404, page=FrontPage.PROXY), Condition.UNREACHED),
        (Answer(status=421, page=FrontPage.MISDIRECTED), Condition.UNREACHED),
        (Answer(status=404, page=FrontPage.NOTHING), Condition.UNREACHED),
        (Answer(status=503, page=FrontPage.STARTING), Condition.SILENT),
        (Answer(status=503, page=FrontPage.STOPPED), Condition.SILENT),
        (Answer(status=502, page=FrontPage.NO_ANSWER), Condition.UNWELL),
        (Answer(status=502, page=FrontPage.BAD_ANSWER), Condition.UNWELL),
        (Answer(status=502, page=FrontPage.LONG_HEAD), Condition.UNWELL),
        (Answer(status=200, page="of a later version"), Condition.UNREACHED),
    ],
)
def test_each_answer_to_the_first_request_means_one_thing(
    answer: Answer, condition: Condition
) -> None:
    finding, _ = walk(answer)
    assert finding is not None
    assert finding.condition is condition
    assert bool(finding.problem) is (condition is not Condition.WELL)
    assert parse_finding(finding.as_json()) == finding


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("login", "/login"),
        ("/login?next=/", "/login?next=/"),
        ("?page=1", "/?page=1"),
        ("./a/../b", "/b"),
        (f"http://{HOST}/x", "/x"),
        (f"HTTP://{HOST.upper()}", "/"),
        (f"//{HOST}/x#part", "/x"),
        ("/caf\xc3\xa9 menu", "/caf%C3%A9%20menu"),
        ("/\u0416", "/%D0%96"),
    ],
)
def test_redirects_to_the_own_host_are_followed(location: str, path: str) -> None:
    finding, paths = walk(redirect(location), Answer(status=200))
    assert finding == Finding(condition=Condition.WELL, requests=2)
    assert paths == ["/", path]


def test_behind_tls_a_redirect_to_https_is_one_to_the_own_host() -> None:
    walking = Walk(HOST, "https")
    assert walking.take(redirect(f"https://{HOST}/x")) is None
    assert walking.path == "/x"


def test_redirects_are_followed_a_few_steps() -> None:
    steps = [redirect(f"/{number}") for number in range(REDIRECTS_MAX)]
    assert walk(*steps, Answer(status=200))[0] == Finding(
        condition=Condition.WELL, requests=REDIRECTS_MAX + 1
    )
    finding, _ = walk(*steps, redirect("/more"))
    assert finding is not None
    assert finding.condition is Condition.UNWELL
    assert "more than 4 redirects" in finding.problem


def test_a_refresh_leads_to_a_page_that_has_to_be_well_too() -> None:
    finding, paths = walk(Answer(status=200, refresh="/next"), Answer(status=404))
    assert paths == ["/", "/next"]
    assert finding is not None
    assert finding.problem.startswith("GET /next, where the refresh of / leads, answers 404")


def test_pages_that_lead_on_and_on_show_themselves_meanwhile() -> None:
    round_trip = [Answer(status=200, refresh="/b"), Answer(status=200, refresh="/")]
    assert walk(*round_trip)[0] == Finding(condition=Condition.WELL, requests=2)
    slides = [Answer(status=200, refresh=f"/{number}") for number in range(REDIRECTS_MAX + 1)]
    finding, _ = walk(*slides)
    assert finding is not None
    assert finding.condition is Condition.WELL


def test_the_sentence_names_the_page_that_fails_and_what_to_do() -> None:
    finding, _ = walk(redirect("/login"), Answer(status=404))
    assert finding is not None
    assert finding.problem == (
        "GET /login answers 404, which is what everybody sees who opens the app: show a page there."
    )


def test_a_sentence_stays_short_whatever_an_app_sends() -> None:
    finding, _ = walk(redirect("/" + "x" * 50_000), redirect("http://localhost/" + "\0y" * 9_000))
    assert finding is not None
    assert len(finding.problem) < 600
    assert finding.problem.isprintable()
    assert parse_finding(finding.as_json()) == finding


def test_whoever_was_well_is_started_again_whatever_its_page_says_short_of_a_fault() -> None:
    assert health.first_problem(Answer(status=403))
    assert not health.restart_problem(Answer(status=403))
    assert health.restart_problem(Answer(status=500))
    assert not health.first_problem(redirect("/login"))


@pytest.mark.parametrize(
    "document",
    [
        {"condition": "fine", "problem": "", "requests": 1},
        {"condition": "well", "problem": "x" * 1001, "requests": 1},
        {"condition": "well", "problem": "", "requests": 0},
        [],
    ],
)
def test_a_finding_is_read_within_its_bounds(document: Any) -> None:
    with pytest.raises(ProtocolError):
        parse_finding(document)


@pytest.mark.parametrize("secret", ["", "a b", "a\r\nHost: x", "\u00e9", "x" * 65, 5])
def test_a_secret_that_no_header_can_hold_is_refused(secret: Any) -> None:
    assert parse_secret({"secret": "0aF"}) == "0aF"
    with pytest.raises(ProtocolError):
        parse_secret({"secret": secret})
