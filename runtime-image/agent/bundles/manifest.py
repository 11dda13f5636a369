"""`spawn.json`: what kind of app a folder holds and how it starts. Pure.

Used by `bundle.py`, `app.py` and the generator.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from agent.bundles.paths import UnsafePath, safe_relative
from agent.layout import MANIFEST_NAME

STARTERS = ("python", "python3", "node", "uvicorn", "flask", "gunicorn")
MAX_WORDS = 32
MAX_WORD_CHARS = 500
MAX_MANIFEST_BYTES = 64 * 1024


class AppKind(StrEnum):
    STATIC = "static"  # the agent serves the files itself
    PYTHON = "python"  # a process that listens on $PORT
    NODE = "node"  # the same


class ManifestInvalid(ValueError):
    """The message says what to change."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`start` is an argv without a shell; empty for static apps."""

    kind: AppKind
    start: tuple[str, ...]
    title: str

    def as_json(self) -> bytes:
        fields = {"kind": str(self.kind), "title": self.title, "start": list(self.start)}
        return json.dumps(fields, indent=2).encode() + b"\n"

    def command(self, *, host: str, port: int) -> list[str]:
        """The argv with `$PORT` and `$HOST` filled in: uvicorn takes them as words only."""
        values = {"${PORT}": str(port), "$PORT": str(port), "${HOST}": host, "$HOST": host}
        return [_filled_in(word, values) for word in self.start]


def _filled_in(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def parse_manifest(document: object) -> Manifest:
    """Check a decoded `spawn.json`. Unknown fields are ignored. Raises ManifestInvalid."""
    if not isinstance(document, dict):
        raise ManifestInvalid("the manifest is not an object")
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in set(AppKind):
        raise ManifestInvalid(f"kind must be one of {', '.join(AppKind)}, not {kind!r}")
    title = document.get("title") or document.get("name") or "App"
    if not isinstance(title, str):
        raise ManifestInvalid("title must be a text")
    start = () if kind == AppKind.STATIC else _start(document.get("start"))
    return Manifest(kind=AppKind(kind), start=start, title=title[:200])


def read_manifest(raw: bytes) -> Manifest:
    """Check the bytes of a `spawn.json`. Raises ManifestInvalid."""
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ManifestInvalid(f"{MANIFEST_NAME} is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise ManifestInvalid(f"{MANIFEST_NAME} is not JSON: {error}") from error
    return parse_manifest(document)


def check_entry(manifest: Manifest, files: Collection[str]) -> None:
    """Raise ManifestInvalid if the app's first file is missing from `files` (clean paths)."""
    if manifest.kind is AppKind.STATIC:
        if "index.html" not in files:
            raise ManifestInvalid("a static app needs an index.html in its folder")
        return
    scripts = (word for word in manifest.start[1:] if word.endswith((".py", ".js", ".mjs", ".cjs")))
    for script in scripts:
        if not script.startswith("-") and safe_relative(script) not in files:
            raise ManifestInvalid(f"start names {script!r}, but there is no such file")


def _start(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ManifestInvalid('start must be a list of words, such as ["python", "main.py"]')
    if not 1 <= len(value) <= MAX_WORDS or any(len(word) > MAX_WORD_CHARS for word in value):
        raise ManifestInvalid(f"start must have 1 to {MAX_WORDS} words of sensible length")
    if value[0] not in STARTERS:
        raise ManifestInvalid(f"start must begin with one of {', '.join(STARTERS)}")
    for word in value[1:]:
        # `--option=value` hides a path behind the sign.
        candidate = word.split("=", 1)[1] if word.startswith("-") and "=" in word else word
        try:
            safe_relative(candidate)
        except UnsafePath as error:
            raise ManifestInvalid(f"start: {error}") from error
    return tuple(value)
