"""The usage of a request: a repeatable count of tokens, and a prompt cache like the real one.

`server.py` calls it. A prompt is the tools, then the system prompt, then the messages. A
`cache_control` mark caches the prompt up to its block. A request reads the longest cached prefix
that ends at a mark or within the 20 blocks before one. Unlike the real service, this cache stores
prefixes of any length and forgets none.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from typing import Any

from orchestrator.entrypoints.demo.wire import CHARS_PER_TOKEN, Json, Reply, to_json

LOOK_BACK = 20  # blocks before a mark whose prefixes are looked up too


def input_tokens(body: Json) -> int:
    """The tokens of the system prompt, the messages and the tools."""
    parts = [body.get(name) for name in ("system", "messages", "tools")]
    return len(to_json(parts)) // CHARS_PER_TOKEN + 1


def output_tokens(reply: Reply) -> int:
    return sum(len(block.payload) for block in reply.blocks) // CHARS_PER_TOKEN + 1


class PromptCache:
    """The digests of all prefixes that were marked."""

    def __init__(self) -> None:
        self._digests: set[str] = set()
        self._lock = threading.Lock()

    def usage(self, body: Json, reply: Reply) -> Json:
        """The `usage` object of an answer. Caches the marked prefixes of the request."""
        prefixes = list(_prefixes(body))
        marks = [index for index, (_, _, marked) in enumerate(prefixes) if marked]
        candidates = {
            index for mark in marks for index in range(max(0, mark - LOOK_BACK), mark + 1)
        }
        with self._lock:
            cached = [prefixes[i][1] for i in candidates if prefixes[i][0] in self._digests]
            self._digests.update(prefixes[index][0] for index in marks)
        read = max(cached, default=0)
        longest = max((prefixes[index][1] for index in marks), default=0)
        return {
            "input_tokens": max(1, input_tokens(body) - longest),
            "cache_creation_input_tokens": longest - read,
            "cache_read_input_tokens": read,
            "output_tokens": output_tokens(reply),
            "service_tier": "standard",
        }


def _prefixes(body: Json) -> Iterator[tuple[str, int, bool]]:
    """For the prefix that ends at each block: its digest, its tokens, and whether it is marked."""
    digest, chars = hashlib.sha256(), 0
    for block in _prompt_blocks(body):
        unmarked = {key: value for key, value in block.items() if key != "cache_control"}
        raw = to_json(unmarked)
        digest.update(raw)
        chars += len(raw)
        yield digest.hexdigest(), chars // CHARS_PER_TOKEN, bool(block.get("cache_control"))


def _prompt_blocks(body: Json) -> Iterator[Json]:
    yield from body.get("tools") or ()
    yield from _blocks(body.get("system"))
    for message in body["messages"]:
        for block in _blocks(message["content"]):
            yield {**block, "role": message["role"]}


def _blocks(content: Any) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content or []
