"""Rows of the table of apps: what an app answers. Collected in `apps`."""

from __future__ import annotations

from dataclasses import replace

from tests.compat.app_answers import (
    BROTLI,
    COMPRESSED,
    FIRST,
    LAST,
    LONG_PAGE,
    PAGE,
    Stream,
    answer,
    beside,
    chunks,
    head_of,
    keep_open,
    match_etag,
    of_host,
    part,
    raw,
    redirects,
    slow,
    unframed,
    wants_cookie,
)
from tests.compat.app_cases import (
    CUT,
    KIB,
    OURS,
    Asked,
    Outcome,
    as_sent,
    cases,
    with_headers,
)

FIRST_PAGE = cases(
    "first page",
    ("200 and a page", answer()),
    ("204 without a body", raw(head_of(204, {})), {"outcome": as_sent(204, body=b"")}),
    (
        "200 without a body",
        answer(200, b""),
        {"check": "answers 200 and nothing else", "outcome": as_sent(200, body=b"")},
    ),
    ("404", answer(404), {"check": "GET / answers 404", "outcome": as_sent(404)}),
    ("403", answer(403), {"check": "GET / answers 403", "outcome": as_sent(403)}),
    ("418", answer(418), {"check": "GET / answers 418", "outcome": as_sent(418)}),
    ("500", answer(500), {"check": "GET / answers 500", "outcome": as_sent(500)}),
    (
        "503 with `Retry-After`",
        answer(503, Retry_After="9"),
        {"check": "GET / answers 503", "outcome": with_headers("as sent", 503, retry_after="9")},
    ),
    (
        "401 with `WWW-Authenticate`",
        answer(401, WWW_Authenticate='Basic realm="App"'),
        {"outcome": with_headers("as sent", 401, www_authenticate='Basic realm="App"')},
    ),
    (
        "401 with `WWW-Authenticate: Bearer`",
        answer(401, WWW_Authenticate="Bearer"),
        {
            "check": "for which no browser asks its user",
            "outcome": with_headers("as sent", 401, www_authenticate="Bearer"),
        },
    ),
    (
        "401 without `WWW-Authenticate`",
        answer(401),
        {"check": "401 without WWW-Authenticate", "outcome": as_sent(401)},
    ),
    ("the first byte comes late", slow),
    (
        "the page never ends",
        Stream("text/html", ends=False),
        {"outcome": Outcome(body=FIRST + LAST, is_cut=True, says="as it comes"), "look_s": 2.0},
    ),
)
REDIRECTS = cases(
    "redirect",
    (
        "a path without a host",
        of_host(302, "login"),
        {"outcome": with_headers("as sent", 302, b"", location="login")},
    ),
    (
        "its own host, as the request named it",
        of_host(307, "http://{host}/login"),
        {"outcome": as_sent(307, body=b"")},
    ),
    (
        "its own host, over https",
        of_host(301, "https://{host}/login"),
        {"check": "redirects to https, which nobody answers", "outcome": as_sent(301, body=b"")},
    ),
    (
        "`http://localhost:3001`, where it listens",
        of_host(302, "http://localhost:3001/login"),
        {
            "check": "which is the visitor's own machine",
            "outcome": with_headers("as sent", 302, b"", location="http://localhost:3001/login"),
        },
    ),
    (
        "`http://172.17.0.3:3001`, its address in the sandbox",
        of_host(302, "http://172.17.0.3:3001/login"),
        {
            "check": "which visitors can't reach",
            "outcome": with_headers("as sent", 302, b"", location="http://172.17.0.3:3001/login"),
        },
    ),
    (
        "`javascript:`",
        of_host(302, "javascript:alert(1)"),
        {
            "check": "where no browser goes",
            "outcome": with_headers("as sent", 302, b"", location="javascript:alert(1)"),
        },
    ),
    ("another host", of_host(302, "https://login.example/?a"), {"outcome": as_sent(302, body=b"")}),
    (
        "the same page, with a cookie that it wants back",
        wants_cookie("; Path=/; HttpOnly; SameSite=Lax"),
        {"outcome": as_sent(302, body=b"")},
    ),
    (
        "the same, and the cookie is for another domain",
        wants_cookie("; Path=/; Domain=elsewhere.example"),
        {"check": "comes after more than 4 redirects", "outcome": as_sent(302, body=b"")},
    ),
    ("four, one after the other", redirects(4), {"outcome": as_sent(302, body=b"")}),
    (
        "five, one after the other",
        redirects(5),
        {"check": "GET /4 comes after more than 4 redirects", "outcome": as_sent(302, body=b"")},
    ),
    (
        "302 without a `Location`",
        answer(302, b""),
        {"check": "302 without a Location", "outcome": as_sent(302, body=b"")},
    ),
)
HEADS = cases(
    "head of the answer",
    *(
        (
            f"a cookie of {size // KIB} KiB",
            answer(Set_Cookie="a=" + "x" * size),
            {"outcome": with_headers("as sent", set_cookie="a=" + "x" * size)},
        )
        for size in (4 * KIB, 16 * KIB, 60 * KIB)
    ),
    (
        "more than 64 KiB",
        answer(Set_Cookie="a=" + "x" * 64 * KIB),
        {"check": "more than 64 KiB", "outcome": replace(OURS, contains="64 KiB")},
    ),
    (
        "ten `Set-Cookie`",
        answer(Set_Cookie=[f"c{n}={'x' * 400}; Path=/; HttpOnly" for n in range(10)]),
        {
            "outcome": with_headers(
                "each of them",
                set_cookie=[f"c{n}={'x' * 400}; Path=/; HttpOnly" for n in range(10)],
            )
        },
    ),
    (
        "a Content-Security-Policy of 8 KiB",
        answer(Content_Security_Policy="default-src 'self' " + "x.example " * 800),
        {
            "outcome": with_headers(
                "as sent",
                content_security_policy=("default-src 'self' " + "x.example " * 800).strip(),
            )
        },
    ),
    (
        "150 lines",
        answer(**{f"X{n}": "x" for n in range(150)}),
        {"outcome": with_headers("as sent", x149="x")},
    ),
    (
        "a header in UTF-8",
        answer(X_Name="caf\xc3\xa9"),
        {"outcome": with_headers("as sent", x_name="caf\xc3\xa9")},
    ),
    (
        "`Date` and `Server`",
        answer(Date="Mon, 01 Jan 1990 00:00:00 GMT", Server="Own/1"),
        {"outcome": with_headers("with those of the proxy", server="nginx")},
    ),
    (
        "`X-Accel-Redirect`, `X-Spawn-Page`",
        answer(X_Accel_Redirect="/.spawn-pages/404.html", X_Spawn_Page="nothing"),
        {"outcome": with_headers("without these", x_accel_redirect=None, x_spawn_page=None)},
    ),
)
FRAMING = cases(
    "end of the answer",
    (
        "in chunks",
        unframed(chunks(b"<p>a", b"b"), Transfer_Encoding="chunked"),
        {"outcome": as_sent(200, body=b"<p>ab")},
    ),
    (
        "in chunks, with trailers",
        unframed(chunks(PAGE, end=b"0\r\nX-Sum: 1\r\n\r\n"), Transfer_Encoding="chunked"),
        {"outcome": with_headers("without the trailers", x_sum=None)},
    ),
    ("the connection ends", unframed(PAGE)),
    ("HTTP/1.0", raw(head_of(200, {"Content-Type": "text/html"}, "1.0") + PAGE)),
    ("a length, and the connection stays open", keep_open),
    (
        "more than its length says",
        raw(head_of(200, {"Content-Length": "5"}) + PAGE),
        {"outcome": as_sent(200, "so many bytes", PAGE[:5])},
    ),
    (
        "less than its length says",
        raw(head_of(200, {"Content-Length": "99"}) + PAGE),
        {"check": "GET / ", "outcome": CUT},
    ),
    (
        "the last chunk is missing",
        unframed(chunks(PAGE, end=b""), Transfer_Encoding="chunked"),
        {"check": "GET / ", "outcome": CUT},
    ),
    (
        "a length and chunks",
        unframed(chunks(PAGE), Transfer_Encoding="chunked", Content_Length="3"),
    ),
    ("the same length twice", raw(head_of(200, {"Content-Length": [str(len(PAGE))] * 2}) + PAGE)),
    (
        "two lengths",
        raw(head_of(200, {"Content-Length": ["5", "6"]}) + PAGE),
        {"check": "GET / fails", "outcome": OURS},
    ),
    ("nothing", raw(b""), {"check": "closed the connection without", "outcome": OURS}),
    ("no HTTP", raw(b"hello\r\n\r\n"), {"check": "GET / fails", "outcome": OURS}),
    (
        "103 before the answer",
        raw(head_of(103, {"Link": "</a.css>"}) + head_of(200, {"Content-Length": "2"}) + b"ok"),
        {"outcome": as_sent(200, "the answer alone", b"ok")},
    ),
    (
        "101, though nobody asked",
        raw(head_of(101, {"Upgrade": "x", "Connection": "Upgrade"})),
        {"check": "GET / fails", "outcome": OURS},
    ),
    (
        "204 with a body",
        raw(head_of(204, {}) + b"body"),
        {"outcome": as_sent(204, "without it", b"")},
    ),
    (
        "304 with a body",
        beside(raw(head_of(304, {"ETag": '"v1"'}) + b"body")),
        {
            "asked": Asked(target="/x", headers={"If-None-Match": '"v1"'}),
            "outcome": as_sent(304, "without it", b""),
        },
    ),
)
_GZIP = {"Accept-Encoding": "gzip, br"}
ENCODINGS = cases(
    "encoding",
    (
        "gzip by the app",
        answer(200, COMPRESSED, Content_Encoding="gzip"),
        {
            "asked": Asked(headers=_GZIP),
            "outcome": with_headers("as sent", body=LONG_PAGE, content_length=str(len(COMPRESSED))),
        },
    ),
    (
        "brotli by the app",
        answer(200, BROTLI, Content_Encoding="br"),
        {
            "asked": Asked(headers=_GZIP),
            "outcome": with_headers("as sent", body=BROTLI, content_encoding="br"),
        },
    ),
    (
        "text, and the client takes gzip",
        answer(200, LONG_PAGE, ETag='W/"v1"'),
        {
            "asked": Asked(headers=_GZIP),
            "outcome": with_headers(
                "compressed",
                body=LONG_PAGE,
                content_encoding="gzip",
                vary="Accept-Encoding",
                etag='W/"v1"',
            ),
        },
    ),
    (
        "text, and the client takes no gzip",
        answer(200, LONG_PAGE),
        {
            "asked": Asked(headers={"Accept-Encoding": "gzip;q=0"}),
            "outcome": with_headers(
                "as sent, with `Vary`",
                body=LONG_PAGE,
                content_encoding=None,
                vary="Accept-Encoding",
            ),
        },
    ),
    (
        "`Cache-Control: no-transform`",
        answer(200, LONG_PAGE, Cache_Control="no-transform"),
        {
            "asked": Asked(headers=_GZIP),
            "outcome": with_headers("as sent", body=LONG_PAGE, content_encoding=None),
        },
    ),
    (
        "a strong `ETag`",
        match_etag,
        {
            "asked": Asked(headers=_GZIP),
            "outcome": with_headers("as sent", body=LONG_PAGE, content_encoding=None, etag='"v1"'),
        },
    ),
    (
        "`If-Match` with that tag",
        match_etag,
        {
            "asked": Asked(method="PUT", headers={**_GZIP, "If-Match": '"v1"'}, body_bytes=3),
            "outcome": with_headers("as sent", 204, b"", etag='"v1"'),
        },
    ),
    (
        "`If-None-Match` with that tag",
        beside(match_etag),
        {
            "asked": Asked(target="/x", headers={**_GZIP, "If-None-Match": '"v1"'}),
            "outcome": with_headers("as sent", 304, b"", etag='"v1"'),
        },
    ),
    (
        "a part of a file",
        part,
        {
            "asked": Asked(headers={**_GZIP, "Range": "bytes=2-5"}),
            "outcome": with_headers(
                "as sent",
                206,
                LONG_PAGE[2:6],
                content_range=f"bytes 2-5/{len(LONG_PAGE)}",
                content_encoding=None,
            ),
        },
    ),
)
STREAMS = cases(
    "stream",
    *(
        (
            behaviour,
            stream if path == "/" else beside(stream),
            {
                "asked": Asked(target=path, headers=_GZIP),
                "outcome": as_sent(200, "each piece at once", FIRST + LAST),
            },
        )
        for behaviour, stream, path in (
            ("server-sent events", Stream("text/event-stream"), "/live"),
            (
                "server-sent events until the connection ends",
                Stream("text/event-stream", is_chunked=False),
                "/live",
            ),
            ("lines of JSON", Stream("application/json"), "/live"),
            ("text, and the client takes gzip", Stream("text/plain"), "/live"),
        )
    ),
)
