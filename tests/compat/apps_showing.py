"""Rows of the table of apps: how a page comes, and where it leads. Collected in `apps`."""

from __future__ import annotations

import zlib

from tests.compat.app_answers import (
    FIRST,
    LAST,
    LONG_PAGE,
    PAGE,
    Stream,
    after,
    answer,
    refresh_page,
    refreshes,
    with_picture,
)
from tests.compat.app_cases import WELL, Asked, Outcome, as_sent, cases, with_headers

PATIENCE = cases(
    "first page",
    ("200 and a page, after 3 s", after(3.0)),
)
REFRESHES = cases(
    "refresh",
    *(
        (
            f"`<meta>` to {what}",
            refreshes(target),
            {"check": check, "outcome": as_sent(200, body=refresh_page(target))},
        )
        for what, target, check in (
            ("a page that is missing", "/missing", "where the refresh of / leads, answers 404"),
            ("another page", "/next", WELL),
            ("itself, again and again", "/", WELL),
            (
                "the visitor's own machine",
                "http://localhost:3001/",
                "leads by a refresh to http://l",
            ),
        )
    ),
    (
        "`Refresh` to a page that is missing",
        refreshes("/missing", by_header=True),
        {
            "check": "where the refresh of / leads, answers 404",
            "outcome": with_headers("as sent", refresh="0; url=/missing"),
        },
    ),
)
DECODED = cases(
    "encoding",
    (
        "deflate by the app",
        answer(200, zlib.compress(LONG_PAGE), Content_Encoding="deflate"),
        {"outcome": as_sent(200, body=zlib.compress(LONG_PAGE))},
    ),
    (
        "says gzip, and is none",
        answer(200, LONG_PAGE, Content_Encoding="gzip"),
        {
            "check": "says Content-Encoding: gzip, and its body is something else",
            "outcome": Outcome(body=None, says="as sent, and no browser shows it"),
        },
    ),
    (
        "says `Content-Encoding: utf-8`, which browsers overlook",
        answer(200, PAGE, Content_Encoding="utf-8"),
        {"outcome": with_headers("as sent", content_encoding="utf-8")},
    ),
)
ENDLESS = cases(
    "stream",
    (
        "the pictures of a camera, as a part of the page",
        with_picture(Stream("multipart/x-mixed-replace; boundary=b")),
        {
            "asked": Asked(target="/camera"),
            "outcome": as_sent(200, "each piece at once", FIRST + LAST),
        },
    ),
)
