"""Counts the tokens of a Messages API answer while its bytes pass through the gateway. Pure.

Called by the gateway, which forwards the bytes unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.contract import json_bounds
from orchestrator.contract.event_stream import EventReader
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.domain.llm.requests import CacheWrite, ModelRequest
from orchestrator.services.llm.token_counts import token_count

# The shortest frame around a piece of text: `{"type":"content_block_delta","index":0,...`.
_FRAME_BYTES = 74
_VALUES_MAX = 50_000  # in an answer, or in an event; both have some hundred


@dataclass(frozen=True, kw_only=True)
class Metered:
    """The tokens of one answer."""

    counts: TokenCounts
    whole: bool  # False: the answer broke off, and `counts` is the most that it can have used


class StreamMeter:
    """Meters a streamed answer: `feed` it each chunk, then ask for the `result`."""

    def __init__(self, request: ModelRequest) -> None:
        self._request = request
        self._reader: EventReader | None = EventReader()  # None: the stream can't be read any more
        self._usage: dict[str, Any] = {}
        self._delta_bytes = 0
        self._size_bytes = 0
        self._has_output_usage = False
        self._has_final_usage = False
        self._whole = False

    def feed(self, chunk: bytes) -> None:
        self._size_bytes += len(chunk)
        if self._reader is None:
            return
        try:
            for event in self._reader.feed(chunk):
                self._read(event)
        except ValueError:  # an event that doesn't end
            self._reader = None

    def result(self) -> Metered:
        """The tokens of the answer. If nobody has said how many it has, each streamed byte counts
        as one."""
        for event in self._reader.end() if self._reader else ():
            self._read(event)
        counts = _counts(self._usage, self._request) if self._usage else worst_case(self._request)
        if self._whole and self._has_output_usage:
            return Metered(counts=counts, whole=True)
        size_bytes = self._delta_bytes if self._reader else self._size_bytes
        streamed = min(size_bytes, self._request.max_tokens)
        counts = replace(counts, output=max(counts.output, streamed))
        return Metered(counts=counts, whole=self._whole)

    def result_if_cut(self) -> Metered:
        """The same if it was the provider that broke off: it may have gone on without us, and
        thought what it didn't show. Its output counts in full, unless it has said how much it
        was."""
        result = self.result()
        if result.whole or self._has_final_usage:
            return result
        return replace(result, counts=replace(result.counts, output=self._request.max_tokens))

    def _read(self, event: bytes) -> None:
        if b'"content_block_delta"' in event:
            self._delta_bytes += max(0, len(event) - _FRAME_BYTES)
        elif b'"message_start"' in event or b'"message_delta"' in event:
            decoded = _json(event)
            message = decoded.get("message")
            usage = message.get("usage") if isinstance(message, dict) else decoded.get("usage")
            fields = usage.items() if isinstance(usage, dict) else ()
            self._usage |= {name: value for name, value in fields if value is not None}
            is_delta = decoded.get("type") == "message_delta"
            output = token_count(dict(fields).get("output_tokens"))
            # Who has sent something and says that it was nothing doesn't count.
            self._has_output_usage |= is_delta and bool(
                output or (output == 0 and not self._delta_bytes)
            )
            delta = decoded.get("delta")
            if isinstance(delta, dict) and delta.get("stop_reason") and fields:
                self._has_final_usage = True
        elif b'"message_stop"' in event:
            self._whole = True


class BodyMeter:
    """Meters an answer that is one JSON object."""

    def __init__(self, request: ModelRequest) -> None:
        self._request = request
        self._chunks: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def result(self) -> Metered:
        usage = _json(b"".join(self._chunks)).get("usage")
        if not isinstance(usage, dict):
            return Metered(counts=worst_case(self._request), whole=False)
        counts = _counts(usage, self._request)
        if token_count(usage.get("output_tokens")) is None:
            counts = replace(counts, output=self._request.max_tokens)
        return Metered(counts=counts, whole=True)

    def result_if_cut(self) -> Metered:
        return self.result()


def worst_case(request: ModelRequest) -> TokenCounts:
    """The most tokens that a call can have used if it was sent and given up before its answer.

    A stream that hasn't begun has used its input alone.
    """
    input_field = {
        CacheWrite.NONE: "input",
        CacheWrite.FIVE_MINUTES: "cache_write_5m",
        CacheWrite.ONE_HOUR: "cache_write_1h",
    }[request.cache_write]
    counts = TokenCounts(**{input_field: request.input_bound})
    return counts if request.stream else replace(counts, output=request.max_tokens)


def lost_answer(request: ModelRequest) -> TokenCounts:
    """The most tokens that a call can have used if the provider worked on it to its end."""
    return replace(worst_case(request), output=request.max_tokens)


def _counts(usage: Mapping[str, Any], request: ModelRequest) -> TokenCounts:
    cache_written = _count(usage, "cache_creation_input_tokens")
    detail = usage.get("cache_creation")
    if isinstance(detail, dict):
        cache_written_1h = _count(detail, "ephemeral_1h_input_tokens")
    else:  # the provider gives one figure: assume the dearest that the request allows
        cache_written_1h = cache_written if request.cache_write is CacheWrite.ONE_HOUR else 0
    counts = TokenCounts(
        input=_count(usage, "input_tokens"),
        cache_write_5m=max(0, cache_written - cache_written_1h),
        cache_write_1h=cache_written_1h,
        cache_read=_count(usage, "cache_read_input_tokens"),
    )
    if not counts.total:  # every request has some: the provider hasn't counted them
        counts = replace(worst_case(request), output=0)
    return replace(counts, output=_count(usage, "output_tokens"))


def _count(usage: Mapping[str, Any], name: str) -> int:
    return token_count(usage.get(name)) or 0


def _json(raw: bytes) -> dict[str, Any]:
    try:
        decoded = json_bounds.decode(raw, _VALUES_MAX)
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}
