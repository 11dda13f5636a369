"""What nginx refuses or can't do by itself, in words: problem JSON for programs.

nginx_config writes it beside the pages of `proxy/pages`, which say the same to people. Three
problems stand elsewhere, because their words depend on more than the status: who asks too often, in
client_limits; that no process of the API answers, in nginx.conf.j2; and that an upload to an app is
too large, in contract/uploads.py. docs/errors.md names all codes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.contract.heads import HEAD_MAX_BYTES, HEAD_MAX_LINES

PAGE_BODY_MAX_BYTES = 128 * 1024  # of a request to page and API, which counts it again
PAGE_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Of requests to page and API. To the API's server most others are no HTTP at all: it would refuse
them without a code, before the API could."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer of nginx's own. `name` is that of its files: `400.json` and `400.html`."""

    name: str  # begins with `page-` if apps answer the same status in other words
    status: int
    title: str
    code: str  # for programs: it stays
    detail: str  # what is wrong and what to do
    members: Mapping[str, int | str] = field(default_factory=dict)

    def as_json(self) -> str:
        """Problem details (RFC 9457)."""
        problem = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.members,
        }
        return json.dumps(problem, separators=(",", ":")) + "\n"


REFUSALS: Sequence[Refusal] = (
    Refusal(
        name="400",
        status=400,
        title="Bad Request",
        code="bad_request",
        detail="This is no valid request of HTTP/1.1. Look at its first line, its Host header, its"
        " lengths and its other headers.",
    ),
    Refusal(
        name="404",
        status=404,
        title="Not Found",
        code="app_unknown",
        detail="There is no app under this name. It has ended, or the name has a typo.",
    ),
    Refusal(
        name="page-404",
        status=404,
        title="Not Found",
        code="not_found",
        detail="There is nothing at this address.",
    ),
    Refusal(
        name="405",
        status=405,
        title="Method Not Allowed",
        code="method_not_allowed",
        detail="This method isn't passed on. Use one of those in Allow.",
    ),
    Refusal(
        name="page-413",
        status=413,
        title="Content Too Large",
        code="body_too_large",
        detail=f"The body of a request may have {PAGE_BODY_MAX_BYTES // 1024} KiB. Send less.",
        members={"limit_bytes": PAGE_BODY_MAX_BYTES},
    ),
    Refusal(
        name="414",
        status=414,
        title="URI Too Long",
        code="uri_too_long",
        detail=f"The first line of a request may have {HEAD_MAX_BYTES // 1024} KiB. Send what is"
        " long in a body.",
        members={"limit_bytes": HEAD_MAX_BYTES},
    ),
    Refusal(
        name="421",
        status=421,
        title="Misdirected Request",
        code="host_refused",
        detail="Nothing is served under this name. Use the page's own address; the operator adds"
        " names with SPAWN_EXTRA_HOSTS.",
    ),
    Refusal(
        name="429",
        status=429,
        title="Too Many Requests",
        code="too_many_connections",
        detail="Too many requests to apps are open, from your network or to this app. Ask again"
        " later; the operator raises the limits with SPAWN_CONNECTIONS_PER_ADDRESS,"
        " SPAWN_APP_CONNECTIONS_PER_ADDRESS and SPAWN_CONNECTIONS_PER_APP.",
    ),
    Refusal(
        name="431",
        status=431,
        title="Request Header Fields Too Large",
        code="head_too_large",
        detail=f"Address and headers of a request may have {HEAD_MAX_BYTES // 1024} KiB together,"
        f" and the headers {HEAD_MAX_LINES:,} lines. Send less.",
        members={"limit_bytes": HEAD_MAX_BYTES, "limit_lines": HEAD_MAX_LINES},
    ),
    Refusal(
        name="500",
        status=500,
        title="Internal Server Error",
        code="internal",
        detail="Something went wrong on our side; nginx/error.log in the state folder says what.",
    ),
    Refusal(
        name="501",
        status=501,
        title="Not Implemented",
        code="transfer_coding_unknown",
        detail="The only transfer coding of a request is chunked. Send its body so, or with its"
        " length.",
    ),
    Refusal(
        name="502",
        status=502,
        title="Bad Gateway",
        code="app_unavailable",
        detail="This app isn't answering. It has stopped or is being moved to another machine. It"
        " usually recovers within a minute.",
    ),
    Refusal(
        name="503",
        status=503,
        title="Service Unavailable",
        code="app_connecting",
        detail="This app is being connected. Try again in a second.",
    ),
    Refusal(
        name="505",
        status=505,
        title="HTTP Version Not Supported",
        code="http_version_unknown",
        detail="Requests come in HTTP/1.1 or HTTP/1.0.",
    ),
)
