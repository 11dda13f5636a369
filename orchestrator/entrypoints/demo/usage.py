"""What a request costs: a repeatable count of tokens, and a prompt cache like the real one.

Used by `server.py`. A `cache_control` mark caches everything before it, tools first, then the
system prompt, then messages; a request reads the longest known beginning that ends at a mark or
within the twenty blocks before one. Unlike the real service this one caches beginnings of any
length, and forgets none.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from typing import Any

from orchestrator.entrypoints.demo.wire import CHARS_PER_TOKEN, Json, Reply, dumped

LOOK_BACK = 20


def input_tokens(body: Json) -> int:
    """Of everything that the model is told."""
    told = [body.get(part) for part in ("system", "messages", "tools")]
    return len(dumped(told)) // CHARS_PER_TOKEN + 1


def output_tokens(reply: Reply) -> int:
    return sum(len(block.payload) for block in reply.blocks) // CHARS_PER_TOKEN + 1


class PromptCache:
    """The beginnings of prompts that were marked so far."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def usage(self, body: Json, reply: Reply) -> Json:
        """The `usage` object of an answer; what was marked is known from now on."""
        beginnings = list(_beginnings(body))
        marks = [at for at, (_, _, marked) in enumerate(beginnings) if marked]
        seen = {at for mark in marks for at in range(max(0, mark - LOOK_BACK), mark + 1)}
        with self._lock:
            known = [beginnings[at][1] for at in seen if beginnings[at][0] in self._known]
            self._known.update(beginnings[at][0] for at in marks)
        read = max(known, default=0)
        longest = max((beginnings[at][1] for at in marks), default=0)
        return {
            "input_tokens": max(1, input_tokens(body) - longest),
            "cache_creation_input_tokens": longest - read,
            "cache_read_input_tokens": read,
            "output_tokens": output_tokens(reply),
            "service_tier": "standard",
        }


def _beginnings(body: Json) -> Iterator[tuple[str, int, bool]]:
    """Digest and tokens of the prompt up to each block, and whether a mark stands there."""
    digest, chars = hashlib.sha256(), 0
    for part in _parts(body):
        bare = {key: value for key, value in part.items() if key != "cache_control"}
        raw = dumped(bare)
        digest.update(raw)
        chars += len(raw)
        yield digest.hexdigest(), chars // CHARS_PER_TOKEN, bool(part.get("cache_control"))


def _parts(body: Json) -> Iterator[Json]:
    yield from body.get("tools") or ()
    yield from _blocks(body.get("system"))
    for message in body["messages"]:
        for block in _blocks(message["content"]):
            yield {**block, "role": message["role"]}


def _blocks(content: Any) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content or []
