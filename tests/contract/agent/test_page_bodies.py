"""What a browser makes of the body of a page: its coding, and where it leads on."""

from __future__ import annotations

import gzip
import zlib

import pytest

from orchestrator.contract.page_bodies import REFRESH_MAX_S, decoded, refresh_of

TEXT = b"Hello, hello, hello"
PACKED = gzip.compress(TEXT, mtime=0)


@pytest.mark.parametrize(
    ("body", "coding", "expected"),
    [
        (TEXT, "", TEXT),
        (TEXT, "identity", TEXT),
        (PACKED, "gzip", TEXT),
        (PACKED, "X-GZIP", TEXT),
        (PACKED[:-9], "gzip", TEXT[:-3]),
        (gzip.compress(PACKED, mtime=0), "gzip, gzip", TEXT),
        (zlib.compress(TEXT), "deflate", TEXT),
        (zlib.compress(TEXT)[2:-4], "deflate", TEXT),
        (b"", "gzip", b""),
        (TEXT, "utf-8", TEXT),
        (TEXT, "br", TEXT),
        (TEXT, "gzip", None),
        (TEXT, "deflate", None),
        (PACKED, "gzip, gzip", None),
    ],
)
def test_a_body_is_what_its_coding_says_or_nobody_can_read_it(
    body: bytes, coding: str, expected: bytes | None
) -> None:
    content = decoded(body, coding, 1000)
    if body == PACKED[:-9]:
        assert content is not None
        assert TEXT.startswith(content)
    else:
        assert content == expected


def test_a_body_that_unpacks_to_very_much_is_cut() -> None:
    assert decoded(gzip.compress(bytes(10_000_000)), "gzip", 1000) == bytes(1000)


@pytest.mark.parametrize(
    ("content", "target"),
    [
        ("0; url=/next", "/next"),
        ("0;URL='/next page'", "/next%20page"),
        ('3, "/next"', "/next"),
        (" 1.5 ;/next", "/next"),
        ("0 /next", "/next"),
        ("0;url=/caf\u00e9", "/caf%C3%A9"),
        (f"{REFRESH_MAX_S};url=/next", "/next"),
        (f"{REFRESH_MAX_S + 1};url=/next", None),
        ("5", None),
        ("5;", None),
        ("soon; url=/next", None),
        ("", None),
    ],
)
def test_a_refresh_is_read_as_browsers_read_it(content: str, target: str | None) -> None:
    assert refresh_of(content, "", "") == target
    quoted = content.replace('"', "&quot;")
    page = f'<!doctype html><title>x</title><META Content="{quoted}" http-equiv=Refresh>'
    assert refresh_of("", "text/html; charset=utf-8", page) == target
    assert refresh_of("", "text/plain", page) is None


META = '<meta http-equiv="refresh" content="0;url=next">'


@pytest.mark.parametrize(
    "page",
    [
        f"<!-- {META} -->",
        f"<noscript>{META}</noscript>",
        f"<template>{META}</template>",
        f"<title>{META}</title>",
        f"<script>let page = '{META}'</script>",
        f"<textarea>{META}",
    ],
)
def test_what_is_no_tag_leads_nowhere(page: str) -> None:
    assert refresh_of("", "text/html", page) is None
    assert refresh_of("", "text/html", f"{META}{page}") == "next"


def test_a_refresh_is_relative_to_the_base_of_its_page() -> None:
    assert refresh_of("", "text/html", f'<base href="/app/">{META}') == "/app/next"


@pytest.mark.parametrize(
    "piece",
    ["<!--", "<meta ", "<meta a=", '<meta "', "<script", "a", "a ", '="', "1", "<noscript>"],
)
def test_whatever_a_page_has_is_read_in_one_pass(piece: str) -> None:
    """A search that takes the square of the length wouldn't come to its end here."""
    text = piece * (1_000_000 // len(piece))
    for begin in ("", "<meta ", '<meta http-equiv="refresh" content="'):
        refresh_of("", "text/html", f"{begin}{text} refresh")
