"""Names of the page: how they are written, and which may belong to whom."""

from __future__ import annotations

import pytest

from orchestrator.domain import host_names


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8080", "localhost"),
        ("localhost.:8080", "localhost"),
        ("localhost:", "localhost"),
        ("127.0.0.1:8080", "127.0.0.1"),
        ("[::1]:8080", "[::1]"),
        ("[0:0:0:0:0:0:0:1]", "[::1]"),
        ("spawn.example.com", "spawn.example.com"),
    ],
)
def test_a_host_header_names_a_host_without_its_port(header: str, name: str) -> None:
    assert host_names.from_header(header) == name


@pytest.mark.parametrize(
    "header",
    ["", ":80", "a b", "a/b", "user@localhost", "localhost:http", "[::1", "[x]", "::1", "a,b", "é"],
)
def test_a_malformed_host_header_names_nothing(header: str) -> None:
    assert host_names.from_header(header) == ""


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("http://localhost:8080", "localhost"),
        ("https://Spawn.Example.com", "spawn.example.com"),
        ("http://[::1]:8080", "[::1]"),
        ("null", ""),
        ("", ""),
        ("localhost", ""),
        ("file://localhost", ""),
        ("chrome-extension://localhost", ""),
        ("http://localhost/path", ""),
        ("http://evil@localhost", ""),
    ],
)
def test_an_origin_names_a_host_only_if_it_is_of_the_web(origin: str, name: str) -> None:
    assert host_names.from_origin(origin) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Spawn.Example.com", "spawn.example.com"),
        ("192.168.1.5", "192.168.1.5"),
        ("fd00::7", "[fd00::7]"),
        ("[FD00:0::7]", "[fd00::7]"),
        ("my_host", "my_host"),
    ],
)
def test_a_name_has_one_spelling(text: str, name: str) -> None:
    assert host_names.parse(text) == name


@pytest.mark.parametrize("text", ["", "a b", "http://a", "a:80", "*.example.com", "bücher.example"])
def test_what_is_no_name_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="without scheme and port"):
        host_names.parse(text)


@pytest.mark.parametrize(
    ("page", "apps", "domain"),
    [
        ("example.test", "apps.example.test", "example.test"),
        ("example.test", "example.test", "example.test"),
        ("Spawn.Example.test", "apps.example.test.", "example.test"),
        ("apps.example.test", "example.test", "example.test"),
        ("localhost", "apps.localhost", ""),  # browsers take no cookies for a single label
        ("localhost", "localhost", ""),
        ("example.test", "example-apps.test", ""),
        ("spawn.internal", "apps.example.test", ""),
        ("10.0.0.5", "apps.localhost", ""),
    ],
)
def test_apps_can_set_cookies_for_the_page_below_a_common_domain(
    page: str, apps: str, domain: str
) -> None:
    assert host_names.cookie_domain(page, apps) == domain
