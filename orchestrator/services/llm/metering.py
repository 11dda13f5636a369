"""What an answer of the Messages API used, read from its bytes as they pass. Pure; called by the
gateway, which passes the bytes on untouched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.domain.llm.requests import Ask, CacheWrite

# The shortest frame around a piece of text: `data: {"type":"content_block_delta","index":0,...`.
_FRAME_BYTES = 80
_LINE_MAX_BYTES = 4 * 1024**2


@dataclass(frozen=True, kw_only=True)
class Metered:
    """The tokens of one answer."""

    counts: TokenCounts
    whole: bool  # the answer came to its end; if not, counts are the most that it can have used


class StreamMeter:
    """Of an answer that is streamed."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._rest = b""
        self._usage: dict[str, Any] = {}
        self._delta_bytes = 0
        self._whole = False

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[:_LINE_MAX_BYTES]
        for line in lines:
            if line.startswith(b"data:"):
                self._data(line)

    def result(self) -> Metered:
        """Of a stream that broke off, as much output as was said: a token has a byte or more."""
        counts = _counts(self._usage, self._ask)
        if self._whole or not self._usage:
            return Metered(counts=counts if self._usage else unknown(self._ask), whole=self._whole)
        said = min(self._delta_bytes, self._ask.max_tokens)
        return Metered(counts=replace(counts, output=max(counts.output, said)), whole=False)

    def _data(self, line: bytes) -> None:
        if b'"content_block_delta"' in line:
            self._delta_bytes += max(0, len(line) - _FRAME_BYTES)
        elif b'"message_start"' in line or b'"message_delta"' in line:
            event = _json(line[len(b"data:") :])
            message = event.get("message")
            usage = message.get("usage") if isinstance(message, dict) else event.get("usage")
            known = usage.items() if isinstance(usage, dict) else ()
            self._usage |= {name: value for name, value in known if value is not None}
        elif b'"message_stop"' in line:
            self._whole = True


class BodyMeter:
    """Of an answer that comes as one JSON object."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._chunks: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def result(self) -> Metered:
        usage = _json(b"".join(self._chunks)).get("usage")
        if not isinstance(usage, dict):
            return Metered(counts=unknown(self._ask), whole=False)
        return Metered(counts=_counts(usage, self._ask), whole=True)


def unknown(ask: Ask) -> TokenCounts:
    """What a call may have used that was sent and never answered: its worst case, which for a
    stream that hasn't begun is all of its input."""
    write = {
        CacheWrite.NONE: "input",
        CacheWrite.FIVE_MINUTES: "cache_write_5m",
        CacheWrite.ONE_HOUR: "cache_write_1h",
    }[ask.cache_write]
    counts = TokenCounts(**{write: ask.input_bound})
    return counts if ask.stream else replace(counts, output=ask.max_tokens)


def _counts(usage: Mapping[str, Any], ask: Ask) -> TokenCounts:
    written = _count(usage, "cache_creation_input_tokens")
    detail = usage.get("cache_creation")
    if isinstance(detail, dict):
        long = _count(detail, "ephemeral_1h_input_tokens")
    else:  # not told apart: as dear as the request allows
        long = written if ask.cache_write is CacheWrite.ONE_HOUR else 0
    return TokenCounts(
        input=_count(usage, "input_tokens"),
        output=_count(usage, "output_tokens"),
        cache_write_5m=max(0, written - long),
        cache_write_1h=long,
        cache_read=_count(usage, "cache_read_input_tokens"),
    )


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if type(value) is int and value > 0 else 0


def _json(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
