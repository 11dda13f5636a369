"""Rows of the table of apps: the head of what an app is asked. Collected in `apps`."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.contract.heads import SET_BY_PROXY
from tests.compat.app_answers import answer, beside, report_body, report_target
from tests.compat.app_cases import KIB, SENT, Asked, Outcome, as_sent, cases

CLAIMS_OF_VISITORS = (
    "Forwarded",
    "X-Real-IP",
    "X-Client-IP",
    "Client-IP",
    "True-Client-IP",
    "X-Cluster-Client-IP",
    "CF-Connecting-IP",
    "CF-Access-Jwt-Assertion",
    "Fastly-Client-IP",
    "Remote-User",
    "X-Remote-User",
    "X-Forwarded-User",
    "X-Auth-Request-Email",
)
CLAIMS_OF_REQUESTS = (
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-Scheme",
    "X-Forwarded-Ssl",
    "X-Original-URL",
    "X-Original-Host",
    "X-Rewrite-URL",
    "X-Script-Name",
    "Front-End-Https",
)
TARGETS = cases(
    "address",
    *(
        (
            behaviour,
            beside(report_target),
            {
                "asked": Asked(target=target),
                "outcome": as_sent(200, "arrives as it is", target.encode()),
            },
        )
        for behaviour, target in (
            ("`%2F`", "/a%2Fb"),
            ("dot segments", "/a/../b/./c"),
            ("two slashes", "//a//b"),
            ("UTF-8, encoded", "/caf%C3%A9"),
            ("a query with anything", "/?a=%&b=[]{}|^&&=?/"),
            ("30 KiB", "/" + "x" * 30 * KIB),
            ("`%2F`, `%5C` and `%2E%2E` in it", "/a%2F..%5Cb/%2E%2E/c%252F"),
            ("a semicolon, a colon and `@`", "/a;b=1/c:d@e"),
        )
    ),
    *(
        (
            behaviour,
            beside(report_target),
            {
                "asked": Asked(target=target),
                "outcome": Outcome(status=status, body=None, says=says),
            },
        )
        for behaviour, target, status, says in (
            ("65 KiB", "/" + "x" * 65 * KIB, 414, "from the proxy"),
            ("above its root: `/../x`", "/../x", 400, "from the proxy"),
        )
    ),
    (
        "as an absolute URI",
        beside(report_target),
        {
            "asked": Asked(target="http://{host}/a?b"),
            "outcome": as_sent(200, "arrives as a path", b"/a?b"),
        },
    ),
    (
        "UTF-8, as it was typed",
        beside(report_target),
        {
            "asked": Asked(target="/caf\u00e9?\u0416"),
            "outcome": as_sent(200, "arrives encoded", b"/caf%C3%A9?%D0%96"),
        },
    ),
    (
        "`%00`",
        beside(report_target),
        {
            "asked": Asked(target="/a%00b"),
            "outcome": Outcome(status=400, body=None, says="from the proxy"),
        },
    ),
)
REQUESTS = cases(
    "head of the request",
    ("its host, with the port", answer(), {"seen": {"host": "{host}"}}),
    (
        "who asks, and how",
        answer(),
        {
            "asked": Asked(headers={"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher"}),
            "seen": {
                "x-forwarded-for": "127.0.0.1",
                "x-forwarded-proto": "http",
                "x-forwarded-host": "{host}",
            },
            "outcome": replace(SENT, says="the app sees what the proxy knows"),
        },
    ),
    (
        "cookies and `Authorization`",
        answer(),
        {
            "asked": Asked(headers={"Cookie": "a=1; b=2", "Authorization": "Bearer x"}),
            "seen": {"cookie": "a=1; b=2", "authorization": "Bearer x"},
            "outcome": replace(SENT, says="the app sees them"),
        },
    ),
    (
        "cookies of 60 KiB",
        answer(),
        {"asked": Asked(headers={"Cookie": "x" * 60 * KIB}), "seen": {"cookie": "x" * 60 * KIB}},
    ),
    (
        "`Accept-Encoding`, `Range`, `If-None-Match`",
        answer(),
        {
            "asked": Asked(
                headers={"Accept-Encoding": "br", "Range": "bytes=0-", "If-None-Match": '"x"'}
            ),
            "seen": {"accept-encoding": "br", "range": "bytes=0-", "if-none-match": '"x"'},
            "outcome": replace(SENT, says="the app sees them"),
        },
    ),
    (
        "what concerns one hop alone",
        answer(),
        {
            "asked": Asked(
                headers={"Connection": "keep-alive", "Keep-Alive": "9", "X-Spawn-Trial": "x"}
            ),
            "seen": {"connection": "close", "keep-alive": None, "x-spawn-trial": None},
            "outcome": replace(SENT, says="the app doesn't see it"),
        },
    ),
    *(
        (
            behaviour,
            answer(),
            {
                "asked": Asked(headers=dict.fromkeys(names, "6.6.6.6")),
                "seen": {name.lower(): None for name in names},
                "outcome": replace(SENT, says="the app doesn't see it"),
            },
        )
        for behaviour, names in (
            (
                "where a visitor is, or who: `Forwarded`, `X-Real-IP`, `X-Client-IP`,"
                " `True-Client-IP`, `CF-…`, `Remote-…`",
                CLAIMS_OF_VISITORS,
            ),
            (
                "what was asked for: `X-Forwarded-…` beside those above, `X-Original-…`,"
                " `X-Rewrite-URL`",
                CLAIMS_OF_REQUESTS,
            ),
            (
                "the same, and `X_Forwarded_For`, with underscores or dots",
                [
                    name.replace("-", mark)
                    for name in (*CLAIMS_OF_VISITORS, *CLAIMS_OF_REQUESTS, *SET_BY_PROXY)
                    for mark in "_."
                    if "-" in name
                ],
            ),
        )
    ),
    (
        "other names with underscores and dots",
        answer(),
        {
            "asked": Asked(headers={"api_key": "a", "X.Version": "b", "X-Odd_Name": "c"}),
            "seen": {"api_key": "a", "x.version": "b", "x-odd_name": "c"},
            "outcome": replace(SENT, says="the app sees them"),
        },
    ),
    (
        "a name that is none: `X(y)`",
        beside(report_body),
        {
            "asked": Asked(target="/x", headers={"X(y)": "z"}),
            "outcome": Outcome(status=400, body=b"bad request\n", says="from the front"),
        },
    ),
    (
        "`TE`, `Trailer`, `Proxy-Authorization`, `Upgrade: h2c` with `HTTP2-Settings`",
        answer(),
        {
            "asked": Asked(
                headers={
                    "TE": "trailers",
                    "Trailer": "X-Sum",
                    "Proxy-Authorization": "Basic eA==",
                    "Connection": "Upgrade, HTTP2-Settings",
                    "Upgrade": "h2c",
                    "HTTP2-Settings": "AAMAAABkAAQAAP__",
                }
            ),
            "seen": dict.fromkeys(
                ["te", "trailer", "proxy-authorization", "upgrade", "http2-settings"]
            ),
            "outcome": replace(SENT, says="answered in HTTP/1.1; the app doesn't see them"),
        },
    ),
    *(
        (
            behaviour,
            beside(report_body),
            {
                "asked": Asked(method="POST", target="/x", headers=headers),
                "outcome": Outcome(status=400, body=None, says="from the proxy"),
            },
        )
        for behaviour, headers in (
            ("two lengths", {"Content-Length": "5", "content-length": "6"}),
            ("the same length twice", {"Content-Length": "5", "content-length": "5"}),
            (
                "a length and chunks",
                {"Content-Length": "5", "Transfer-Encoding": "chunked"},
            ),
            ("two hosts", {"host": "localhost"}),
            ("a length that is none", {"Content-Length": "5, 5"}),
            ("a header of two lines", {"X-Folded": "a\r\n b"}),
        )
    ),
    (
        "a length and chunks, misspelled",
        beside(report_body),
        {
            "asked": Asked(
                method="POST",
                target="/x",
                headers={"Content_Length": "5", "Transfer_Encoding": "chunked"},
            ),
            "seen": {"content_length": None, "transfer_encoding": None},
            "outcome": as_sent(200, "the app sees neither", b"POST 0"),
        },
    ),
    (
        "another coding than chunks",
        beside(report_body),
        {
            "asked": Asked(method="POST", target="/x", headers={"Transfer-Encoding": "gzip"}),
            "outcome": Outcome(status=501, body=None, says="from the proxy"),
        },
    ),
    (
        "three requests over one connection, at once",
        answer(),
        {"asked": Asked(times=3), "outcome": replace(SENT, says="each is answered")},
    ),
)
