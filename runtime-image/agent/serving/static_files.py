"""Answers requests from files: static apps, and the browser libraries under `/_lib/`.

Used by `front.py` and `probe.py`. `answer` only looks at the files and returns a value; the front
writes it to the client.
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

# Instead of the mimetypes module, which reads several system files at its first use.
CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "htm": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "json": "application/json",
    "map": "application/json",
    "webmanifest": "application/manifest+json",
    "txt": "text/plain; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "xml": "application/xml",
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "ico": "image/x-icon",
    "woff": "font/woff",
    "woff2": "font/woff2",
    "ttf": "font/ttf",
    "otf": "font/otf",
    "wasm": "application/wasm",
    "pdf": "application/pdf",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "wav": "audio/wav",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "zip": "application/zip",
}
REVALIDATE = "no-cache"
FOREVER = "public, max-age=31536000, immutable"
"""For `/_lib/`. An app's address is unique and never outlives its image."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response. `path` is the file to send after the head; if None, `body` is the content."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    path: str | None = None


def resolve(root: str, target: str) -> str | None:
    """The path below `root` that a request target names; None if it is not to be served.

    That is a dotfile, or a path that leaves `root`, also through a link.
    """
    decoded = _decode(target.partition("?")[0].partition("#")[0])
    if decoded is None or not decoded.startswith("/") or "\x00" in decoded or "\\" in decoded:
        return None
    parts = [part for part in decoded.split("/") if part]
    if any(part.startswith(".") for part in parts):
        return None
    path = os.path.join(root, *parts)
    real_root = os.path.realpath(root)
    real = os.path.realpath(path)
    return path if real == real_root or real.startswith(real_root + os.sep) else None


def answer(
    root: str,
    method: str,
    target: str,
    *,
    if_none_match: str | None,
    cache_control: str,
    files: Collection[str] | None = None,
) -> Answer:
    """The answer to a GET or HEAD of `target` from the files below `root`, or only from `files`."""
    if method not in ("GET", "HEAD"):
        return text_answer(405, b"method not allowed\n", (("Allow", "GET, HEAD"),))
    path = resolve(root, target)
    details = _stat(path)
    if path is not None and details is not None and stat.S_ISDIR(details.st_mode):
        if not target.partition("?")[0].endswith("/"):
            return _to_folder(target)
        path = os.path.join(path, "index.html")
        details = _stat(path)
    if path is None or details is None or not stat.S_ISREG(details.st_mode):
        return _not_found(root)
    if files is not None and os.path.relpath(path, root) not in files:
        return _not_found(root)
    etag = f'"{details.st_mtime_ns:x}-{details.st_size:x}"'
    caching = (("ETag", etag), ("Cache-Control", cache_control))
    if if_none_match is not None and _matches(if_none_match, etag):
        return Answer(status=304, headers=caching)
    return _file(200, path, details.st_size, caching)


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


def _content(
    status: int, content_type: str, body: bytes, headers: tuple[tuple[str, str], ...]
) -> Answer:
    length = ("Content-Length", str(len(body)))
    return Answer(
        status=status,
        headers=(("Content-Type", content_type), length, ("Cache-Control", "no-store"), *headers),
        body=body,
    )


def _file(status: int, path: str, size: int, headers: tuple[tuple[str, str], ...]) -> Answer:
    extension = path.rpartition("/")[2].rpartition(".")[2].lower()
    return Answer(
        status=status,
        headers=(
            ("Content-Type", CONTENT_TYPES.get(extension, "application/octet-stream")),
            ("Content-Length", str(size)),
            ("X-Content-Type-Options", "nosniff"),
            *headers,
        ),
        path=path,
    )


def _not_found(root: str) -> Answer:
    own_page = os.path.join(root, "404.html")
    details = _stat(own_page)
    if details is None or not stat.S_ISREG(details.st_mode):
        return html_answer(404, pages.NOT_FOUND)
    return _file(404, own_page, details.st_size, (("Cache-Control", "no-store"),))


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


def _stat(path: str | None) -> os.stat_result | None:
    if path is None:
        return None
    try:
        return os.stat(path)
    except OSError:
        return None
