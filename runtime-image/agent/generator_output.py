"""What the model sent, checked and written; and how far it has come. Pure but for `write`.

Used by `generator.py` alone, in the generator's process.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from agent.layout import MANIFEST_NAME
from agent.manifest import Manifest, ManifestInvalid, check_entry, parse_manifest
from agent.paths import UnsafePath, check_tree, safe_relative

FIRST_PROGRESS = 31
LAST_PROGRESS = 89
TYPICAL_APP_BYTES = 16_000
"""After this much of the stream the bar has gone two thirds of its way."""
WATCHED_CHARS = 600


class FilesInvalid(ValueError):
    """The tool call can't be used; the message tells the model what to change."""


@dataclass(frozen=True, kw_only=True)
class GeneratedApp:
    """`files` maps clean relative paths to contents and includes no manifest."""

    manifest: Manifest
    files: dict[str, bytes]


class StreamProgress:
    """Estimates progress from the bytes of the tool call's input as they arrive."""

    def __init__(self) -> None:
        self._bytes = 0
        self._recent = ""
        self._message = "designing the app"

    def feed(self, partial_json: str) -> tuple[int, str]:
        """Return (percent, message). The percentage never falls and never reaches the end."""
        self._bytes += len(partial_json)
        self._recent = (self._recent + partial_json)[-WATCHED_CHARS:]
        # Inside a file's content quotes are escaped, so this only matches the field itself.
        paths = re.findall(r'(?<!\\)"path"\s*:\s*"([^"\\]{1,200})"', self._recent)
        if paths:
            self._message = f"writing {paths[-1]}"
        share = 1 - math.exp(-self._bytes / TYPICAL_APP_BYTES)
        return FIRST_PROGRESS + int((LAST_PROGRESS - FIRST_PROGRESS) * share), self._message


def parse_tool_input(document: object, existing: Iterable[str]) -> GeneratedApp:
    """Check the input of `write_files`. `existing` are files that stay. Raises FilesInvalid."""
    if not isinstance(document, dict):
        raise FilesInvalid("the input must be an object with manifest and files")
    try:
        # Some models put nested objects into a string.
        manifest = parse_manifest(_unwrapped(document.get("manifest")))
        files = _files(_unwrapped(document.get("files")))
        check_tree((path, len(content)) for path, content in files.items())
        check_entry(manifest, {*files, *existing})
    except (ManifestInvalid, UnsafePath) as error:
        raise FilesInvalid(str(error)) from error
    return GeneratedApp(manifest=manifest, files=files)


def write(app: GeneratedApp, folder: str) -> None:
    """Write files and manifest below `folder`."""
    for path, content in {**app.files, MANIFEST_NAME: app.manifest.as_json()}.items():
        target = os.path.join(folder, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as sink:
            sink.write(content)


def _files(value: object) -> dict[str, bytes]:
    if not isinstance(value, list) or not value:
        raise FilesInvalid("files must be a list with at least one file")
    files: dict[str, bytes] = {}
    for entry in value:
        if not isinstance(entry, dict):
            raise FilesInvalid("each file must be an object with path and content")
        path, content = entry.get("path"), entry.get("content")
        if not isinstance(path, str) or not isinstance(content, str):
            raise FilesInvalid("each file needs a path and a content, both texts")
        clean = safe_relative(path)
        if not clean or clean in files:
            raise FilesInvalid(f"{path!r} names no file, or one that is there twice")
        if clean != MANIFEST_NAME:  # the manifest comes from its own field
            files[clean] = content.encode("utf-8", "replace")
    return files


def _unwrapped(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
