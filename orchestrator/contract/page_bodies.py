"""What a browser makes of the body of a page: it takes off its coding, and follows a refresh.

Whoever walks an app uses it: the check of a version that is being written, and the control plane.
"""

from __future__ import annotations

import re
import zlib
from html import unescape
from urllib.parse import quote, urljoin

REFRESH_MAX_S = 10
"""A page that leads elsewhere after more than this is one that its visitors look at."""
_GZIP_BITS, _ZLIB_BITS, _DEFLATE_BITS = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS
_FRAMES = {
    "gzip": (_GZIP_BITS,),
    "x-gzip": (_GZIP_BITS,),
    "deflate": (_ZLIB_BITS, _DEFLATE_BITS),  # browsers take both
}
# https://html.spec.whatwg.org/multipage/semantics.html#shared-declarative-refresh-steps
_REFRESH = re.compile(
    r"""\s*+(\d*+)[\d.]*+(?=[\s;,])\s*+[;,]?+\s*+(?:url\s*+=\s*+)?+(?:"([^"]*)|'([^']*)|(.*))""",
    re.IGNORECASE | re.DOTALL,
)
# A tag, or what hides tags. Each match consumes all that it looks at: the time is linear.
_TAG = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<(noscript|template|title|textarea|script|style)\b.*?(?:</\1\b|\Z)"
    r"|<(meta|base)\b([^>]*)",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""([^\s=/"']++)(?:\s*+=\s*+(?:"([^"]*+)|'([^']*+)|([^\s"']++)))?+""")
_CONTENT_MAX_CHARS = 4_000
_AS_SENT = "/?%:@!$&'()*+,;=~[]|#"  # a browser doesn't encode these


def decoded(body: bytes, coding: str, most_bytes: int) -> bytes | None:
    """The beginning of a body, or all of it, without its Content-Encoding; at most `most_bytes`.

    None: it isn't what the header says, so no browser can read it. A coding that we don't know is
    left on.
    """
    for name in reversed([name.strip().lower() for name in coding.split(",")]):
        if name in {"", "identity"}:
            continue
        if name not in _FRAMES or not body:
            return body
        unpacked = _unpacked(body, _FRAMES[name], most_bytes)
        if unpacked is None:
            return None
        body = unpacked
    return body


def refresh_of(header: str, media_type: str, body: str) -> str | None:
    """Where a page leads its visitor on by itself, within REFRESH_MAX_S; None: nowhere.

    By the header Refresh, or by `<meta http-equiv="refresh">` in HTML. The target is relative to
    the address of the page.
    """
    if header:
        return _target(header)
    if "html" not in media_type.lower() or "refresh" not in body.lower():
        return None
    base, content = "", ""
    for tag in _TAG.finditer(body):
        name, attributes = (tag[2] or "").lower(), _attributes_of(tag[3] or "")
        if name == "base":
            base = base or attributes.get("href", "")
        elif name == "meta" and attributes.get("http-equiv", "").strip().lower() == "refresh":
            content = content or attributes.get("content", "")
    target = _target(content)
    return None if target is None else urljoin(base, target)


def _attributes_of(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for match in _ATTRIBUTE.finditer(text):
        values.setdefault(match[1].lower(), unescape(match[2] or match[3] or match[4] or ""))
    return values


def _unpacked(body: bytes, frames: tuple[int, ...], most_bytes: int) -> bytes | None:
    for bits in frames:
        try:
            return zlib.decompressobj(bits).decompress(body, most_bytes)
        except zlib.error:
            continue
    return None


def _target(content: str) -> str | None:
    match = _REFRESH.match(content[:_CONTENT_MAX_CHARS])
    if match is None or int((match[1] or "0")[:9]) > REFRESH_MAX_S:
        return None
    target = (match[2] or match[3] or match[4] or "").strip()
    return quote(target, safe=_AS_SENT) or None
