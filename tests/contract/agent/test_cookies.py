"""Which cookies a walk sends back, as a browser does."""

from __future__ import annotations

import pytest

from orchestrator.contract.cookies import HEADER_MAX_CHARS, Cookies


def sent(*lines: str, path: str = "/", host: str = "abc.apps.localhost:8080") -> str:
    cookies = Cookies(host, "http")
    for line in lines:
        cookies.take(line, "/shop/cart?x=/y/")
    return cookies.header(path)


@pytest.mark.parametrize(
    ("lines", "path", "header"),
    [
        (["sid=1; Path=/; HttpOnly; SameSite=Lax"], "/", "sid=1"),
        (["a=1; path=/", "b=2; Path=/", "a=3;Path=/"], "/x?q=1", "a=3; b=2"),
        (["a=x=y; Path=/"], "/", "a=x=y"),
        (["a=1"], "/", ""),
        (["a=1"], "/shop/else", "a=1"),
        (["a=1; Path=/", "a=2; Path=/shop"], "/shop", "a=2; a=1"),
        (["a=1; Path=/shop"], "/shopping", ""),
        (["a=1; Path=/", "a=; Path=/; Max-Age=0"], "/", ""),
        (["a=1; Path=/", "a=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], "/", ""),
        (["a=1; Path=/; Expires=Thu, 01 Jan 2170 00:00:00 GMT; Max-Age=60"], "/", "a=1"),
        (["a=1; Path=/; Domain=abc.apps.localhost"], "/", "a=1"),
        (["a=1; Path=/; Domain=.apps.localhost"], "/", "a=1"),
        (["a=1; Path=/; Domain=elsewhere.example"], "/", ""),
        (["a=1; Path=/; Domain=pps.localhost"], "/", ""),
        (["no cookie", "a=b\x00; Path=/", "", f"a={'x' * 5000}; Path=/"], "/", ""),
    ],
)
def test_what_was_set_is_sent_back_where_it_belongs(
    lines: list[str], path: str, header: str
) -> None:
    assert sent(*lines, path=path) == header


@pytest.mark.parametrize(
    ("host", "scheme", "header"),
    [
        ("localhost", "http", "a=1"),
        ("a.example", "http", ""),
        ("a.example", "https", "a=1"),
    ],
)
def test_a_secure_cookie_needs_tls_except_on_the_own_machine(
    host: str, scheme: str, header: str
) -> None:
    cookies = Cookies(host, scheme)
    cookies.take("a=1; Secure", "/")
    assert cookies.header("/") == header


def test_an_app_that_sets_many_cookies_gets_only_so_much_back() -> None:
    lines = [f"c{number}={'x' * 4000}; Path=/" for number in range(100)]
    assert 8000 < len(sent(*lines)) <= HEADER_MAX_CHARS
