"""Decides which answers are compressed on their way to the client, and compresses them.

Used by `front.py` and `answers.py`. The front does it and not the proxy, because only here all is
known that an app promises of its bytes. It also costs the sandbox's processor time, and nobody
else's. The rules are those of a cache that transforms: RFC 9110, sections 7.7 and 8.8.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

from agent.serving.static_files import Answer

MIN_BYTES = 1024
"""Less fits into a packet or two as it is."""
STATUSES = frozenset({200, 403, 404})
TYPES = frozenset(
    {
        b"application/atom+xml",
        b"application/geo+json",
        b"application/javascript",
        b"application/json",
        b"application/ld+json",
        b"application/manifest+json",
        b"application/problem+json",
        b"application/rss+xml",
        b"application/wasm",
        b"application/xhtml+xml",
        b"application/xml",
        b"font/otf",
        b"font/ttf",
        b"image/svg+xml",
        b"model/gltf+json",
        b"model/obj",
        b"text/calendar",
        b"text/css",
        b"text/csv",
        b"text/html",
        b"text/javascript",
        b"text/markdown",
        b"text/plain",
        b"text/tab-separated-values",
        b"text/vtt",
        b"text/xml",
    }
)
"""Not text/event-stream: some readers of it don't expect gzip."""
_DIGESTS = (b"content-digest", b"content-md5", b"digest", b"repr-digest")
_OF_PLAIN_BODY = frozenset({"Accept-Ranges", "Content-Length"})
_LEVEL = 2
_GZIP_BITS = 16 + 14  # a gzip frame, and 96 KiB of memory for each answer on its way
_MEMORY_LEVEL = 6


class Gzip:
    """Compresses one body."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_BITS, _MEMORY_LEVEL)

    def add(self, data: bytes | bytearray) -> bytes:
        """What to send now. The client can read all that was added."""
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        """The rest."""
        return self._stream.flush()


def joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers, whose names are in lower case, by their names: lines of the same name are one."""
    lines: dict[bytes, bytes] = {}
    for name, value in headers:
        lines[name] = lines[name] + b", " + value if name in lines else value
    return lines


def accepts_gzip(request: Mapping[bytes, bytes]) -> bool:
    """Whether a request, with its headers by names in lower case, takes gzip."""
    for offer in request.get(b"accept-encoding", b"").lower().split(b","):
        coding, _, parameters = offer.partition(b";")
        if coding.strip() == b"gzip":
            weight = parameters.strip().removeprefix(b"q=").strip()
            return not weight or weight.strip(b"0.") != b""
    return False


def is_compressible(status: int, answer: Mapping[bytes, bytes], length: int | None) -> bool:
    """Whether an answer may be compressed. `length` is that of its body, None if it isn't known.

    Not if it promises its bytes: by a strong ETag, which conditional writes compare, by a digest or
    by `no-transform`. A part of a file (206) stays as it is, too.
    """
    media_type = answer.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return (
        status in STATUSES
        and media_type in TYPES
        and (length is None or length >= MIN_BYTES)
        and answer.get(b"content-encoding", b"identity").strip().lower() == b"identity"
        and b"no-transform" not in answer.get(b"cache-control", b"").lower()
        and answer.get(b"etag", b"W/").startswith(b"W/")
        and not any(name in answer for name in _DIGESTS)
    )


def is_own_compressible(answer: Answer) -> bool:
    """The same for an answer of the front itself, whose tags may be weak: nobody writes by them."""
    headers = {
        name.lower().encode(): value.encode("latin-1", "replace") for name, value in answer.headers
    }
    headers.pop(b"etag", None)
    return is_compressible(answer.status, headers, int(headers.get(b"content-length", b"0")))


def own_headers(answer: Answer, *, is_compressed: bool) -> tuple[tuple[str, str], ...]:
    """The headers of such an answer."""
    names = {name.lower(): value for name, value in answer.headers}
    vary = names.get("vary", "").encode()
    headers = [
        (name, "W/" + value if name == "ETag" and is_compressed else value)
        for name, value in answer.headers
        if name != "Vary" and not (is_compressed and name in _OF_PLAIN_BODY)
    ]
    headers.append(("Vary", with_vary(vary).decode()))
    if is_compressed:
        headers += [("Content-Encoding", "gzip"), ("Transfer-Encoding", "chunked")]
    return tuple(headers)


def in_chunk(data: bytes | bytearray) -> bytes:
    """The data as one chunk of a body in chunks. Not for an empty one: that would be its end."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def with_vary(vary: bytes | None) -> bytes:
    """A Vary header that tells caches that the answer depends on Accept-Encoding."""
    names = [] if vary is None else [name.strip().lower() for name in vary.split(b",")]
    if vary and (b"*" in names or b"accept-encoding" in names):
        return vary
    return b"Accept-Encoding" if not vary else vary + b", Accept-Encoding"
