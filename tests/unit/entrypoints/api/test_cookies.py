"""The cookie by which a visitor is known: its name, and that nobody can put another beside it."""

from __future__ import annotations

from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.unit.entrypoints.api.conftest import Api, serving
from tests.unit.services.world import World

PLAIN, UNDER_TLS = "spawn_user", "__Host-spawn_user"


def cookie_of_new_visitor(client: TestClient) -> str:
    """The cookie of a visitor who comes for the first time, as name=value."""
    client.cookies.clear()
    header = client.get("/api/sessions").headers["set-cookie"]
    client.cookies.clear()
    return header.split(";")[0]


def own_sessions(client: TestClient, cookie: str) -> int:
    answer = client.get("/api/sessions", headers={"Cookie": cookie})
    return len(answer.json()["sessions"])


def test_without_tls_the_cookie_has_its_plain_name(client: TestClient) -> None:
    assert cookie_of_new_visitor(client).startswith(f"{PLAIN}=")


def test_under_tls_browsers_accept_the_cookie_from_the_page_alone(
    world: World, tmp_path: Path
) -> None:
    with serving(world, tmp_path, cookie_secure=True) as client:
        (morsel,) = SimpleCookie(client.get("/api/sessions").headers["set-cookie"]).values()
        # What browsers require for the prefix: Secure, the whole site, no domain.
        assert (morsel.key, morsel["path"], morsel["domain"]) == (UNDER_TLS, "/", "")
        assert (morsel["secure"], morsel["httponly"]) == (True, True)


def test_under_tls_a_cookie_of_the_plain_name_means_nothing(world: World, tmp_path: Path) -> None:
    with serving(world, tmp_path, cookie_secure=True) as client:
        cookie = cookie_of_new_visitor(client)
        made = client.post("/api/sessions", json={"template": "todo"}, headers={"Cookie": cookie})
        assert made.status_code == 202
        value = cookie.partition("=")[2]
        assert own_sessions(client, f"{UNDER_TLS}={value}") == 1
        assert own_sessions(client, f"{PLAIN}={value}") == 0
        assert own_sessions(client, f"{PLAIN}=forged; {cookie}") == 1


@pytest.mark.parametrize("path", ["/api/sessions", "/api/status/ses_x"])
def test_two_cookies_of_the_same_name_are_refused(client: TestClient, path: str) -> None:
    own, foreign = cookie_of_new_visitor(client), cookie_of_new_visitor(client)
    for headers in (
        [("Cookie", f"{own}; {foreign}")],
        [("Cookie", f"{own};{own}")],
        [("Cookie", own), ("Cookie", foreign)],
        [("Cookie", f'a=b; {own}; c="d"; {PLAIN} = x')],
    ):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "cookie_ambiguous")
        assert answer.headers["content-type"] == "application/problem+json"
        assert "delete this site's cookies" in answer.json()["detail"]
        assert "set-cookie" not in answer.headers


def test_a_key_needs_no_cookie(client: TestClient, user: Api) -> None:
    own, foreign = cookie_of_new_visitor(client), cookie_of_new_visitor(client)
    user.headers["Cookie"] = f"{own}; {foreign}"
    assert user("GET", "/api/sessions")[0] == 200


def test_cookies_of_other_names_are_none_of_our_business(client: TestClient) -> None:
    own = cookie_of_new_visitor(client)
    assert own_sessions(client, f"theme=a; {own}; theme=b; x{own}") == 0
