"""Bundles: the source of an app as tar.gz with a manifest, and what makes one acceptable."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId, Sha256

PACKED_MAX_BYTES = 20 * 1024**2
UNPACKED_MAX_BYTES = 100 * 1024**2
FILES_MAX = 2000
CACHE = "cache"  # the provider of what an earlier session made
MANIFEST_NAME = "spawn.json"
KINDS = ("static", "python", "node")
_STARTERS = {"python", "python3", "node", "uvicorn", "flask", "gunicorn"}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an agent has to know to start an app."""

    kind: str
    start: tuple[str, ...]  # argv, never a shell line; empty for static apps
    title: str


@dataclass(frozen=True, kw_only=True)
class BundleRecord:
    """One row of the bundles table: a version of a session. The bytes lie under their SHA-256."""

    session_id: SessionId
    version: int
    sha256: Sha256
    size_bytes: int
    kind: str
    title: str
    created_at: datetime
    delete_after: datetime | None  # None while its session lives
    healthy: bool = True  # False: it never ran well, and is kept for its owner alone
    change: int = 0  # number of the change that made it; 0: it is what was asked for at first
    provider: str = ""  # who wrote it: names of providers, CACHE, or "" for a template
    summary: str = ""  # what the model says that it did


@dataclass(frozen=True, kw_only=True)
class Member:
    """One entry of an archive, as its header says."""

    path: str
    is_file: bool
    is_folder: bool
    size_bytes: int


def read_manifest(data: object) -> Manifest:
    """Check a decoded spawn.json. Raises InvalidInput that names the field."""
    if not isinstance(data, Mapping):
        raise _bad("spawn.json must hold a JSON object", "manifest")
    kind = data.get("kind")
    if kind not in KINDS:
        raise _bad(f"kind must be one of {', '.join(KINDS)}", "kind")
    start = data.get("start") or []
    if not isinstance(start, list) or not all(isinstance(word, str) and word for word in start):
        raise _bad("start must be a list of non-empty strings", "start")
    if kind != "static":
        _check_start(start)
    title = data.get("title")
    return Manifest(
        kind=str(kind), start=tuple(start), title=title[:120] if isinstance(title, str) else ""
    )


def check_members(members: list[Member]) -> None:
    """Refuse an archive that could write outside its folder or is too much. Raises InvalidInput."""
    if len(members) > FILES_MAX:
        raise _bad(f"a bundle holds at most {FILES_MAX} files", "bundle")
    for member in members:
        if not (member.is_file or member.is_folder):
            raise _bad(f"{member.path!r} is neither a file nor a folder", "bundle")
        if not is_inside(member.path):
            raise _bad(f"{member.path!r} points outside the bundle", "bundle")
    if sum(member.size_bytes for member in members) > UNPACKED_MAX_BYTES:
        raise _bad(f"a bundle unpacks to at most {UNPACKED_MAX_BYTES} bytes", "bundle")
    paths = {posixpath.normpath(member.path) for member in members}
    if len(paths) != len(members):
        raise _bad("a path occurs twice in the bundle", "bundle")  # which one would be meant?
    if MANIFEST_NAME not in paths:
        raise _bad(f"a bundle needs {MANIFEST_NAME} at its root", "bundle")


def is_inside(path: str) -> bool:
    """Whether a relative path stays below the folder it is resolved against."""
    if not path or "\0" in path or "\\" in path or path.startswith("/"):
        return False
    return ".." not in path.split("/")


def _check_start(start: list[str]) -> None:
    if not start or start[0] not in _STARTERS:
        raise _bad(f"start must begin with one of {', '.join(sorted(_STARTERS))}", "start")
    for word in start[1:]:
        if not word.startswith("-") and (word == ".." or "/" in word) and not is_inside(word):
            raise _bad(f"{word!r} in start points outside the app's folder", "start")


def _bad(message: str, field: str) -> errors.InvalidInput:
    return errors.InvalidInput(message, code="bundle_refused", field=field)
