"""Rows of the table of apps: what an app is asked. Collected in `apps`."""

from __future__ import annotations

from tests.compat.app_answers import (
    PAGE,
    WEBSOCKET,
    answer,
    answer_early,
    beside,
    converse,
    echo_body,
    expects,
    head_of,
    one_at_a_time,
    raw,
    report_body,
)
from tests.compat.app_cases import (
    KIB,
    LIMIT_BYTES,
    Asked,
    Outcome,
    as_sent,
    cases,
    with_headers,
)

METHODS = cases(
    "method",
    (
        "HEAD",
        answer(),
        {
            "asked": Asked(method="HEAD"),
            "outcome": with_headers("the head alone", body=b"", content_length=str(len(PAGE))),
        },
    ),
    (
        "OPTIONS, with headers for other origins",
        beside(raw(head_of(204, {"Access-Control-Allow-Origin": "*"}))),
        {
            "asked": Asked(method="OPTIONS", target="/x"),
            "outcome": with_headers("as sent", 204, b"", access_control_allow_origin="*"),
        },
    ),
    *(
        (
            f"{method} with a body",
            beside(report_body),
            {
                "asked": Asked(method=method, target="/x", body_bytes=5),
                "outcome": as_sent(200, "it arrives", f"{method} 5".encode()),
            },
        )
        for method in ("PUT", "PATCH", "DELETE")
    ),
    (
        "one of its own: BREW",
        beside(report_body),
        {
            "asked": Asked(method="BREW", target="/x"),
            "outcome": as_sent(200, "it arrives", b"BREW 0"),
        },
    ),
    (
        "TRACE",
        beside(report_body),
        {
            "asked": Asked(method="TRACE", target="/x"),
            "outcome": Outcome(status=405, body=None, says="from the proxy"),
        },
    ),
)
_WEBSOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
SOCKETS = cases(
    "WebSocket",
    (
        "agrees",
        WEBSOCKET,
        {
            "asked": Asked(target="/ws", headers={**_WEBSOCKET, "Sec-WebSocket-Protocol": "chat"}),
            "seen": {"sec-websocket-protocol": "chat", "upgrade": "websocket"},
            "outcome": Outcome(status=101, body=None, says="both ways"),
        },
    ),
    (
        "refuses",
        beside(answer(403, b"no")),
        {"asked": Asked(target="/ws", headers=_WEBSOCKET), "outcome": as_sent(403, body=b"no")},
    ),
)
_TEXT_HTML = {"Accept": "text/html,*/*"}
UPLOADS = cases(
    "upload",
    *(
        (
            behaviour,
            beside(report_body),
            {
                "asked": Asked(method="POST", target="/x", body_bytes=size, is_chunked=chunked),
                "outcome": as_sent(200, "it arrives", f"POST {size}".encode()),
            },
        )
        for behaviour, size, chunked in (
            ("at the limit", LIMIT_BYTES, False),
            ("at the limit, in chunks", LIMIT_BYTES, True),
            ("in chunks", 300_000, True),
        )
    ),
    (
        "in chunks, with a trailer",
        beside(report_body),
        {
            "asked": Asked(
                method="POST", target="/x", body_bytes=5, is_chunked=True, trailer="X-Sum: 1\r\n"
            ),
            "outcome": as_sent(200, "it arrives, the trailer doesn't", b"POST 5"),
            "seen": {"x-sum": None},
        },
    ),
    *(
        (
            f"above the limit{', in chunks' if chunked else ''}, {by}",
            beside(report_body),
            {
                "asked": Asked(
                    method="POST",
                    target="/x",
                    headers=headers,
                    body_bytes=LIMIT_BYTES + 1,
                    is_chunked=chunked,
                ),
                "outcome": Outcome(status=413, body=None, contains=text, says=says),
            },
        )
        for chunked in (False, True)
        for by, headers, text, says in (
            ("by a browser", _TEXT_HTML, "12 MiB", "a page that names the limit"),
            (
                "by a program",
                {},
                f'"limit_bytes":{LIMIT_BYTES}',
                "problem details that name the limit",
            ),
        )
    ),
    (
        "`Expect: 100-continue`",
        beside(expects),
        {
            "asked": Asked(
                method="POST", target="/x", headers={"Expect": "100-continue"}, body_bytes=300_000
            ),
            "outcome": as_sent(200, "the client is told to go on", b"POST 300000", interim=(100,)),
        },
    ),
    (
        "the app serves one visitor at a time, and another one's small body pauses on its way",
        one_at_a_time(beside(report_body)),
        {
            "asked": Asked(method="POST", target="/x", body_bytes=5),
            "is_beside_slow": True,
            "outcome": as_sent(200, "served at once", b"POST 5"),
        },
    ),
    (
        "the app answers before it has read the body, and hangs up",
        beside(answer_early),
        {
            "asked": Asked(method="POST", target="/x", body_bytes=LIMIT_BYTES),
            "outcome": as_sent(401, body=b"none"),
        },
    ),
    *(
        (
            f"the app writes while it reads, {size // KIB // KIB} MiB",
            beside(converse),
            {
                "asked": Asked(method="POST", target="/x", body_bytes=size),
                "outcome": as_sent(200, "both arrive whole", b"begun\n%d" % size),
            },
        )
        for size in (1024 * KIB, LIMIT_BYTES)
    ),
    (
        "the app sends it back while it reads, 12 MiB",
        beside(echo_body),
        {
            "asked": Asked(method="POST", target="/x", body_bytes=LIMIT_BYTES),
            "outcome": as_sent(200, "both arrive whole", b"x" * LIMIT_BYTES),
        },
    ),
)
ADDRESSES = cases(
    "listens on",
    *(
        (f"`{address}`", answer(), {"address": address})
        for address in ("127.0.0.1", "localhost", "0.0.0.0", "::", "::1")
    ),
)
