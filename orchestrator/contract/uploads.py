"""How large the body of a request to an app may be, and how more is refused.

The proxy holds it, and the front of an app that is asked past the proxy.
"""

from __future__ import annotations

UPLOAD_MAX_BYTES = 50 * 1024 * 1024
"""Unless home says otherwise. It fits into one file of an app, and into its memory."""


def shown(limit_bytes: int) -> str:
    """The limit for people."""
    return f"{limit_bytes / 1024**2:.15g} MiB"


def refusal(limit_bytes: int) -> str:
    """Problem details (RFC 9457) as JSON. Without apostrophes: nginx puts it between them.

    Not by `json`: the front, which has to start fast, needs it for nothing else.
    """
    return (
        '{"type":"about:blank","title":"Content Too Large","status":413,"detail":"The body of a'
        f' request to this app may have {shown(limit_bytes)}. Send less.","code":"body_too_large",'
        f'"limit_bytes":{limit_bytes}}}'
    )


def slow_refusal(bytes_per_s: int) -> str:
    """The same for a body that came more slowly than this, after a grace."""
    return (
        '{"type":"about:blank","title":"Request Timeout","status":408,"detail":"The body of the'
        f' request came too slowly. Send at least {bytes_per_s} bytes a second.",'
        f'"code":"body_too_slow","bytes_per_s":{bytes_per_s}}}'
    )
