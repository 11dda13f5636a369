"""Which headers of a request reach an app, and which of an answer a visitor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.contract.heads import SET_BY_PROXY, reaches_app, reaches_visitor

CLAIMS = (
    "Forwarded",
    "X-Forwarded",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-Scheme",
    "X-Forwarded-User",
    "X-Forwarded-Access-Token",
    "X-Real-IP",
    "Client-IP",
    "X-Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "CF-Access-Jwt-Assertion",
    "X-Original-URL",
    "X-Original-Host",
    "X-Rewrite-URL",
    "X-Script-Name",
    "Front-End-Https",
    "Remote-User",
    "X-Remote-User",
    "X-Auth-Request-Email",
    "X-Spawn-Trial",
    "X-Spawn-Anything",
)
"""Of who stands before the app. tests/compat sends them through the proxy."""
OF_ONE_HOP = ("Connection", "Keep-Alive", "TE", "Trailer", "Proxy-Authorization", "HTTP2-Settings")


def spellings(name: str) -> list[str]:
    return [name.replace("-", mark) for mark in "-_.~"] + [name.replace("-", "_", 1)]


def dropped_by_nginx() -> list[str]:
    conf = Path("tests/golden/nginx_base.conf").read_text()
    ignored = re.search(r"proxy_ignore_headers ([^;]+);", conf)
    assert ignored
    return [*re.findall(r"proxy_hide_header ([\w-]+);", conf), *ignored[1].split()]


@pytest.mark.parametrize(
    "name", [*dropped_by_nginx(), *OF_ONE_HOP, "Upgrade", "Proxy-Authenticate", "X-Spawn-Page"]
)
def test_what_is_for_a_proxy_reaches_no_visitor_however_it_is_spelled(name: str) -> None:
    for spelled in spellings(name):
        assert not reaches_visitor(spelled.lower().encode()), spelled


@pytest.mark.parametrize(
    "name", ["Cache-Control", "WWW-Authenticate", "Set-Cookie", "X_Foo", "X-Sendfiles", "Location"]
)
def test_what_is_for_the_visitor_reaches_it(name: str) -> None:
    assert reaches_visitor(name.lower().encode())


@pytest.mark.parametrize("name", CLAIMS + OF_ONE_HOP)
def test_what_only_somebody_before_the_app_can_say_is_removed(name: str) -> None:
    for spelled in spellings(name):
        assert not reaches_app(spelled.lower().encode()), spelled


@pytest.mark.parametrize("name", [*SET_BY_PROXY, "Host", "Content-Length", "Transfer-Encoding"])
def test_nothing_passes_for_what_the_proxy_says_or_frames(name: str) -> None:
    assert reaches_app(name.lower().encode())
    for spelled in spellings(name)[1:]:
        assert reaches_app(spelled.lower().encode()) == ("-" not in name), spelled


@pytest.mark.parametrize(
    "name",
    [
        "Cookie",
        "Authorization",
        "X-Requested-With",
        "X-HTTP-Method-Override",
        "X-Client-Version",
        "X-Forward",
        "Remote",
        "api_key",
        "X_Custom",
        "x.custom",
        "CFG-Mode",
        "Content_Type",
    ],
)
def test_all_other_headers_are_between_the_visitor_and_the_app(name: str) -> None:
    assert reaches_app(name.lower().encode())
