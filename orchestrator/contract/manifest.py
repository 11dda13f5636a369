"""`spawn.json`: what kind of app a bundle holds and how the app starts. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.contract.bundles import MANIFEST_NAME, BundleInvalid, safe_relative, shown

MANIFEST_MAX_BYTES = 64 * 1024
STARTERS = ("python", "python3", "node", "uvicorn", "flask", "gunicorn")
START_WORDS_MAX = 32
START_WORD_MAX_CHARS = 500
TITLE_MAX_CHARS = 200
DEFAULT_TITLE = "App"
_JOINERS = "\u200c\u200d"  # within words and emoji
_SCRIPTS = (".py", ".js", ".mjs", ".cjs")


class AppKind(StrEnum):
    """Who answers the visitors of an app."""

    STATIC = "static"  # the agent, from the app's files
    PYTHON = "python"  # a process of the app, which listens on $PORT
    NODE = "node"  # the same


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A checked spawn.json."""

    kind: AppKind
    start: tuple[str, ...]  # argv, without a shell; empty for static apps
    title: str  # for people, never empty
    spa: bool = False  # static: a path that is no file is a page of index.html

    def command(self, *, host: str, port: int) -> list[str]:
        """The argv with `$PORT` and `$HOST` replaced: no shell does it."""
        values = {"${PORT}": str(port), "$PORT": str(port), "${HOST}": host, "$HOST": host}
        return [_with_values(word, values) for word in self.start]


def _with_values(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def read_manifest(raw: bytes) -> Manifest:
    """Check the bytes of a spawn.json. Raises BundleInvalid."""
    if len(raw) > MANIFEST_MAX_BYTES:
        raise _invalid(f"{MANIFEST_NAME} is larger than {MANIFEST_MAX_BYTES} bytes", "manifest")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"{MANIFEST_NAME} is not JSON: {error}", "manifest") from error
    return parse_manifest(document)


def parse_manifest(document: object) -> Manifest:
    """Check a decoded spawn.json. Unknown fields are ignored. Raises BundleInvalid."""
    if not isinstance(document, dict):
        raise _invalid(f"{MANIFEST_NAME} must hold a JSON object", "manifest")
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in set(AppKind):
        raise _invalid(f"kind must be one of {', '.join(AppKind)}", "kind")
    title = document.get("title") or document.get("name") or DEFAULT_TITLE
    if not isinstance(title, str):
        raise _invalid("title must be a text", "title")
    words = _start_words(document.get("start") or [])
    if kind != AppKind.STATIC:
        _check_start(words)
    return Manifest(
        kind=AppKind(kind),
        start=() if kind == AppKind.STATIC else tuple(words),
        title=_plain(title[:TITLE_MAX_CHARS]),
        spa=_spa(document.get("spa"), AppKind(kind)),
    )


def _spa(value: object, kind: AppKind) -> bool:
    if value is not None and not isinstance(value, bool):
        raise _invalid("spa must be true or false", "spa")
    if value and kind is not AppKind.STATIC:
        raise _invalid(f"spa is for static apps: a {kind} app answers all paths itself", "spa")
    return bool(value)


def _plain(title: str) -> str:
    """The title on one line: a text that each database, terminal and page can take."""
    plain = "".join(char if char.isprintable() or char in _JOINERS else " " for char in title)
    return plain.strip() or DEFAULT_TITLE


def check_entry(manifest: Manifest, files: Collection[str]) -> None:
    """Raise BundleInvalid if the app's first file is missing from `files` (clean paths)."""
    if manifest.kind is AppKind.STATIC:
        if "index.html" not in files:
            raise _invalid("a static app needs an index.html in its folder", "bundle")
        return
    for word in manifest.start[1:]:
        is_script = word.endswith(_SCRIPTS) and not word.startswith("-")
        if is_script and safe_relative(word) not in files:
            raise _invalid(f"start names {shown(word)}, but there is no such file", "start")


def _start_words(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise _invalid(
            'start must be a list of non-empty words, such as ["python", "main.py"]', "start"
        )
    return value


def _check_start(words: list[str]) -> None:
    if not 1 <= len(words) <= START_WORDS_MAX:
        raise _invalid(f"start must have 1 to {START_WORDS_MAX} words", "start")
    if any(len(word) > START_WORD_MAX_CHARS for word in words):
        raise _invalid(f"a word in start is longer than {START_WORD_MAX_CHARS} characters", "start")
    if words[0] not in STARTERS:
        raise _invalid(f"start must begin with one of {', '.join(STARTERS)}", "start")
    for word in words[1:]:
        if not word.isprintable():
            raise _invalid(f"start: {shown(word)} holds control characters", "start")
        # `--option=value` hides a path behind the sign.
        value = word.split("=", 1)[1] if word.startswith("-") and "=" in word else word
        try:
            safe_relative(value)
        except BundleInvalid as error:
            raise _invalid(f"start: {error}", "start") from error


def _invalid(message: str, field: str) -> BundleInvalid:
    return BundleInvalid(message, field=field)
