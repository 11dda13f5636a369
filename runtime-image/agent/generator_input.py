"""What the generator sends to the model: the tool, the system prompt, the user's message.

Used by `generator.py` alone, in the generator's process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from agent.layout import MANIFEST_NAME
from agent.manifest import STARTERS, AppKind

DEFAULT_MODEL = "claude-sonnet-5-5"
"""Only if home names none; home's configuration is the place to choose."""
TOOL_NAME = "write_files"
EXISTING_LIMIT_CHARS = 300_000
PROMPT_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "prompt.md")

TOOL: dict[str, Any] = {
    "name": TOOL_NAME,
    "description": "Write the app. Call it once, with all files in full.",
    # Without it the API holds back each file until it is complete, and progress stands still.
    "eager_input_streaming": True,
    "input_schema": {
        "type": "object",
        "properties": {
            "manifest": {
                "type": "object",
                "properties": {
                    "kind": {"type": "string", "enum": [str(kind) for kind in AppKind]},
                    "title": {"type": "string", "description": "A short name for the app."},
                    "start": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": f"First word: {', '.join(STARTERS)}. Empty for static.",
                    },
                },
                "required": ["kind", "title", "start"],
            },
            "files": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "path": {"type": "string", "description": "Relative to the app's folder."},
                        "content": {"type": "string"},
                    },
                    "required": ["path", "content"],
                },
            },
        },
        "required": ["manifest", "files"],
    },
}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the agent hands to the generator on standard input."""

    socket: str
    folder: str
    token: str
    prompt: str
    model: str
    max_tokens: int


def parse_order(line: str) -> Order:
    fields = json.loads(line)
    return Order(
        socket=fields["socket"],
        folder=fields["folder"],
        token=fields["token"],
        prompt=fields["prompt"],
        model=fields["model"] or DEFAULT_MODEL,
        max_tokens=fields["max_tokens"],
    )


def system_prompt() -> str:
    with open(PROMPT_FILE, encoding="utf-8") as source:
        return source.read()


def first_message(order: Order) -> str:
    """The user's wish; after the existing app's files if there are any."""
    existing = "".join(_existing_files(order.folder))
    if not existing:
        return order.prompt
    return f"The app as it is:\n\n{existing}\nChange it as follows:\n\n{order.prompt}"


def _existing_files(folder: str) -> Iterator[str]:
    left = EXISTING_LIMIT_CHARS
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            content = _text_of(path)
            shown = os.path.relpath(path, folder)
            if content is None or len(content) > left:
                yield f'<file path="{shown}">(not shown: binary or too large)</file>\n'
                continue
            left -= len(content)
            note = " (the manifest)" if shown == MANIFEST_NAME else ""
            yield f'<file path="{shown}"{note}>\n{content}\n</file>\n'


def _text_of(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as source:
            return source.read(EXISTING_LIMIT_CHARS + 1)
    except (OSError, UnicodeDecodeError):
        return None
