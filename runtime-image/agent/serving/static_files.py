"""Answers requests from files: static apps, and the browser libraries under `/_lib/`.

Used by `front.py` and `probe.py`. `answer` only looks at the files and returns a value; the front
writes it to the client, and compresses what is text. A copy that is compressed already could be
older than its file, and the check would never see it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass
from typing import BinaryIO

from agent.serving import pages
from agent.serving.media_types import media_type
from agent.serving.ranges import asked_bytes

REVALIDATE = "no-cache"
FOREVER = "public, max-age=31536000, immutable"
"""For `/_lib/`. An app's address is unique and never outlives its image."""
INDEX = "index.html"
NOT_FOUND = "404.html"
NO_BYTES = range(0)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder whose files are shown."""

    root: str
    files: Collection[str] | None = None  # only these paths below `root`; None: all
    spa: bool = False  # a navigation to a path that is no file gets the app's first page
    cache_control: str = REVALIDATE


@dataclass(frozen=True, kw_only=True)
class Request:
    """What matters here of a request. A header that it doesn't have is None."""

    method: str
    target: str
    accept: str | None = None
    if_none_match: str | None = None
    if_range: str | None = None
    range: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response. If `path` is None, `body` is the content; else these bytes of that file are."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    path: str | None = None
    span: range = NO_BYTES
    unchanged: Answer | None = None  # of a 304: what the client has, which a 200 would be


def resolve(root: str, target: str) -> str | None:
    """The path below `root` that a request target names; None if it is not to be served.

    That is a dotfile, or a path that leaves `root`, also through a link.
    """
    decoded = _decode(target.partition("?")[0].partition("#")[0])
    if decoded is None or not decoded.startswith("/") or "\x00" in decoded:
        return None
    parts = [part for part in decoded.split("/") if part]
    if any(part.startswith(".") for part in parts):
        return None
    path = os.path.join(root, *parts)
    real_root = os.path.realpath(root)
    real = os.path.realpath(path)
    return path if real == real_root or real.startswith(real_root + os.sep) else None


def answer(folder: Folder, request: Request) -> Answer:
    """The answer to a request for a file of the folder."""
    if request.method not in ("GET", "HEAD"):
        return text_answer(405, b"method not allowed\n", (("Allow", "GET, HEAD"),))
    path = resolve(folder.root, request.target)
    index = None if path is None else os.path.join(path, INDEX)
    if _details(folder, index) is not None:
        if not request.target.partition("?")[0].endswith("/"):
            return _to_folder(request.target)
        path = index
    caching: tuple[tuple[str, str], ...] = (("Cache-Control", folder.cache_control),)
    details = _details(folder, path)
    if details is None and path is not None and _opens_page(folder, request, path):
        path = os.path.join(folder.root, INDEX)
        caching += (("Vary", "Accept"),)
        details = _details(folder, path)
    if path is None or details is None:
        return _not_found(folder)
    etag = f'"{details.st_mtime_ns:x}-{details.st_size:x}"'
    caching += (("ETag", etag),)
    if request.if_none_match is not None and _matches(request.if_none_match, etag):
        whole = _file(200, path, range(details.st_size), caching)
        return Answer(status=304, headers=caching, unchanged=whole)
    return _content_of(path, details.st_size, request, etag, caching)


def open_file(path: str) -> BinaryIO:
    """Open an answer's file. Raises OSError, also if it has become a pipe: that may never open."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a plain file", path)
    return open(fd, "rb")


def text_answer(status: int, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    return _content(status, "text/plain; charset=utf-8", body, headers)


def html_answer(status: int, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    return _content(status, "text/html; charset=utf-8", body, headers)


def problem_answer(status: int, body: bytes) -> Answer:
    return _content(status, "application/problem+json", body, ())


def _content(
    status: int, content_type: str, body: bytes, headers: tuple[tuple[str, str], ...]
) -> Answer:
    length = ("Content-Length", str(len(body)))
    return Answer(
        status=status,
        headers=(("Content-Type", content_type), length, ("Cache-Control", "no-store"), *headers),
        body=body,
    )


def _opens_page(folder: Folder, request: Request, path: str) -> bool:
    """Whether a browser opens a path that the app's scripts make a page of.

    A script or a picture that is missing stays missing: its request doesn't ask for HTML.
    """
    is_navigation = "text/html" in (request.accept or "").lower()
    return folder.spa and is_navigation and "." not in os.path.basename(path)


def _content_of(
    path: str, size: int, request: Request, etag: str, headers: tuple[tuple[str, str], ...]
) -> Answer:
    """The file, or the part of it that the request asks for."""
    headers = (("Accept-Ranges", "bytes"), *headers)
    part = None
    # The tags are compared as they are: a weak one, such as of a compressed answer, never fits.
    if request.method == "GET" and request.range and request.if_range in (None, etag):
        part = asked_bytes(request.range, size)
    if part is None:
        return _file(200, path, range(size), headers)
    if not part:
        headers = (("Content-Range", f"bytes */{size}"), ("Accept-Ranges", "bytes"))
        return text_answer(416, b"the file ends before that range\n", headers)
    content_range = ("Content-Range", f"bytes {part.start}-{part.stop - 1}/{size}")
    return _file(206, path, part, (content_range, *headers))


def _file(status: int, path: str, span: range, headers: tuple[tuple[str, str], ...]) -> Answer:
    return Answer(
        status=status,
        headers=(
            ("Content-Type", media_type(path)),
            ("Content-Length", str(len(span))),
            ("X-Content-Type-Options", "nosniff"),
            *headers,
        ),
        path=path,
        span=span,
    )


def _not_found(folder: Folder) -> Answer:
    own_page = os.path.join(folder.root, NOT_FOUND)
    details = _details(folder, own_page)
    if details is None:
        return html_answer(404, pages.NOT_FOUND)
    return _file(404, own_page, range(details.st_size), (("Cache-Control", "no-store"),))


def _to_folder(target: str) -> Answer:
    """Redirect to the same name with a slash, so that the folder's relative links work.

    The location is relative and begins with `./`, so `//host` as a target can't lead elsewhere.
    """
    path, question, query = target.partition("?")
    location = "./" + path.rpartition("/")[2] + "/" + question + query
    return text_answer(308, b"", (("Location", location),))


def _matches(if_none_match: str, etag: str) -> bool:
    candidates = [candidate.strip() for candidate in if_none_match.split(",")]
    return "*" in candidates or any(
        candidate.removeprefix("W/") == etag for candidate in candidates
    )


def _decode(path: str) -> str | None:
    # Not urllib.parse: it would double the import time of this module.
    raw = re.sub(
        rb"%([0-9a-fA-F]{2})", lambda match: bytes.fromhex(match[1].decode()), path.encode()
    )
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _details(folder: Folder, path: str | None) -> os.stat_result | None:
    """None unless it is a plain file that the folder shows."""
    if path is None:
        return None
    try:
        details = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(details.st_mode):
        return None
    is_shown = folder.files is None or os.path.relpath(path, folder.root) in folder.files
    return details if is_shown else None
