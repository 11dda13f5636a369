"""The built-in URL shortener, started for real and used over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.integration.catalog.world import ESCAPED, SCRIPT, running


@pytest.fixture(scope="module")
def shortener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with running("shortener", tmp_path_factory.mktemp("shortener")) as (_, client):
        yield client


def shorten(shortener: httpx2.Client, url: str, code: str) -> None:
    made = shortener.post("api/links", json={"url": url, "code": code})
    assert made.status_code == 201, made.text


def test_a_short_link_redirects_counts_and_ends(shortener: httpx2.Client) -> None:
    made = shortener.post("api/links", json={"url": "example.org/a b?c=ü", "code": "my-Link"})
    assert made.status_code == 201
    assert made.json()["url"] == "https://example.org/a%20b?c=%C3%BC"
    assert made.json()["short_url"] == str(shortener.base_url) + "my-Link"
    for _ in range(2):
        hit = shortener.get("my-Link")
        assert (hit.status_code, hit.headers["location"]) == (302, made.json()["url"])
    assert shortener.head("my-Link").status_code == 302  # a look, not a visit
    assert shortener.get("api/links/my-Link").json()["hits"] == 2
    assert "my-Link" in [link["code"] for link in shortener.get("api/links").json()]
    assert shortener.delete("api/links/my-Link").status_code == 204
    assert shortener.get("my-Link").status_code == 404
    gone = shortener.delete("api/links/my-Link")
    assert (gone.status_code, gone.json()) == (404, {"error": "There is no short link “my-Link”."})


def test_a_link_without_a_name_gets_one_that_is_free(shortener: httpx2.Client) -> None:
    codes = [
        shortener.post("api/links", json={"url": f"http://example.org/{n}"}).json()["code"]
        for n in range(20)
    ]
    assert len(set(codes)) == 20
    assert all(re.fullmatch(r"[a-z2-9]{5}", code) for code in codes)


@pytest.mark.parametrize(
    "url",
    ["", "hello", "javascript:alert(1)", "data:text/html,x", "ftp://example.org/", "http://", 7,
     None, "https://user:pw@example.org/", "http://[::1", "https://example.org/" + "x" * 2048],
)  # fmt: skip
def test_what_is_no_web_address_is_refused(shortener: httpx2.Client, url: object) -> None:
    refused = shortener.post("api/links", json={"url": url})
    assert refused.status_code == 422
    assert refused.json()["error"].endswith(".")


def test_a_short_link_to_the_shortener_itself_is_refused(shortener: httpx2.Client) -> None:
    refused = shortener.post("api/links", json={"url": f"{shortener.base_url}map"})
    assert refused.json() == {"error": "That address is already one of ours."}


def test_names_that_cannot_be_used_are_refused(shortener: httpx2.Client) -> None:
    shorten(shortener, "https://example.org/", "taken")
    for code, status in (("taken", 409), ("api", 422), ("a b", 422), ("x", 422), ("../x", 422)):
        refused = shortener.post("api/links", json={"url": "https://example.org/", "code": code})
        assert refused.status_code == status, code
        assert refused.json()["error"]


def test_requests_that_make_no_sense_get_a_clear_answer(shortener: httpx2.Client) -> None:
    assert shortener.post("api/links", content="{nope").status_code == 400
    assert shortener.post("api/links", content="[]").status_code == 400
    assert shortener.post("api/links", content="x" * 3_000_000).status_code == 413
    wrong = shortener.patch("api/links")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, POST")
    for path in ("%ff", "%E0%A4%A"):
        assert shortener.get(path).status_code == 400
    for path in ("nope", "links.json", "server.js", "public/app.js", "..%2flinks.json", "a/b"):
        assert shortener.get(path).status_code == 404, path


def test_the_form_of_the_shortener_works_without_scripts(shortener: httpx2.Client) -> None:
    made = shortener.post("links", data={"url": "https://example.org/form", "code": "form"})
    assert (made.status_code, made.headers["location"]) == (303, "./?new=form")
    assert "Now boarding" in shortener.get("?new=form").text
    deleted = shortener.post("links/form/delete")
    assert (deleted.status_code, deleted.headers["location"]) == (303, "../../")
    assert shortener.get("form").status_code == 404


def test_what_people_write_into_the_shortener_stays_text(shortener: httpx2.Client) -> None:
    shorten(shortener, f"https://example.org/?q='\"{SCRIPT}#<b>'", "odd")
    pages = [
        shortener.get(""),
        shortener.post("links", data={"url": f'"{SCRIPT}', "code": f'"{SCRIPT}'}),
        shortener.get(f"{SCRIPT.replace('/', '%2F')}"),
        shortener.get("", headers={"Host": f'x"{SCRIPT}'}),
    ]
    assert [page.status_code for page in pages] == [200, 422, 404, 200]
    for page in pages:
        assert SCRIPT not in page.text
        assert "default-src 'self'" in page.headers["content-security-policy"]
    assert all(ESCAPED in page.text for page in pages[1:])


def test_short_links_and_their_hits_outlive_a_restart(tmp_path: Path) -> None:
    with running("shortener", tmp_path) as (app, client):
        shorten(client, "https://example.org/", "kept")
        client.get("kept")
        app.stop()
        with app.start() as again:
            assert again.get("api/links/kept").json()["hits"] == 1
