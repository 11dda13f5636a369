"""Chat completions of OpenAI's kind as answers of the Messages API. Pure; the gateway's last
provider uses it: `message_of` for a whole answer, a `StreamTranslator` for one that is streamed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.domain import errors
from orchestrator.domain.llm.pricing import TokenCounts

Json = dict[str, Any]

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def message_of(completion: Mapping[str, Any], estimate: TokenCounts) -> Json:
    """A whole answer. `estimate` stands in for the usage of an endpoint that tells none.
    Raises errors.Temporary for what is no completion."""
    try:
        choice = completion["choices"][0]
        said = choice["message"]
        content = [*_text_blocks(said), *map(_tool_block, said.get("tool_calls") or ())]
    except (KeyError, IndexError, TypeError) as error:
        raise errors.Temporary("the endpoint's answer is no chat completion") from error
    return {
        "id": f"msg_{completion.get('id', 'unknown')}",
        "type": "message",
        "role": "assistant",
        "model": completion.get("model", ""),
        "content": content,
        "stop_reason": _stop_reason(choice.get("finish_reason"), said),
        "stop_sequence": None,
        "usage": _usage(completion.get("usage"), estimate),
    }


def error_of(status: int, body: object) -> Json:
    """An error in the Messages API's shape."""
    said = body.get("error") if isinstance(body, dict) else None
    message = said.get("message") if isinstance(said, dict) else said
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": str(message or f"status {status}")}}


class StreamTranslator:
    """Chunks in, events out: `feed` each chunk, then `finish`."""

    def __init__(self, estimate: TokenCounts) -> None:
        """`estimate` stands in for the usage of an endpoint that tells none; its output is counted
        from what was streamed, a token a byte."""
        self._estimate = estimate
        self._started = False
        self._open: str | None = None  # what the open content block is of: "text" or a call's index
        self._index = -1  # of the last content block
        self._seen_calls: set[str] = set()
        self._finish_reason: str | None = None
        self._refused = False
        self._usage: Mapping[str, Any] | None = None
        self._bytes = 0
        self._id = "unknown"

    def feed(self, chunk: Mapping[str, Any]) -> Iterator[Json]:
        """The events that one chunk amounts to. Raises errors.Temporary for an error in it, and
        for pieces of calls that come out of order."""
        if chunk.get("error"):
            raise errors.Temporary(str(error_of(500, chunk)["error"]["message"]))
        if not self._started:
            self._started = True
            self._id = str(chunk.get("id", "unknown"))
            yield self._message_start(chunk)
        self._usage = chunk.get("usage") or self._usage
        for choice in (chunk.get("choices") or ())[:1]:
            yield from self._delta(choice.get("delta") or {})
            self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def finish(self) -> Iterator[Json]:
        """The events that end the message. Raises errors.Temporary when it isn't at its end."""
        if self._finish_reason is None:
            raise errors.Temporary("the endpoint's answer broke off")
        yield from self._close()
        said = {"refusal": self._refused, "tool_calls": self._seen_calls}
        reason = _stop_reason(self._finish_reason, said)
        counted = TokenCounts(input=self._estimate.input, output=self._bytes)
        yield {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": _usage(self._usage, counted),
        }
        yield {"type": "message_stop"}

    def _message_start(self, chunk: Mapping[str, Any]) -> Json:
        message = {
            "id": f"msg_{self._id}",
            "type": "message",
            "role": "assistant",
            "model": chunk.get("model", ""),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},  # told at the end, as a whole
        }
        return {"type": "message_start", "message": message}

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[Json]:
        for name in ("content", "refusal"):
            if delta.get(name):
                self._refused = self._refused or name == "refusal"
                yield from self._open_block("text", {"type": "text", "text": ""})
                yield self._block_delta("text_delta", "text", delta[name])
        for call in delta.get("tool_calls") or ():
            yield from self._call(call)

    def _call(self, call: Mapping[str, Any]) -> Iterator[Json]:
        key = str(call.get("index", 0))
        function = call.get("function") or {}
        if self._open != key:
            if key in self._seen_calls:
                raise errors.Temporary("the endpoint mixes the pieces of several tool calls")
            self._seen_calls.add(key)
            call_id = call.get("id") or f"call_{self._id}_{key}"
            name = function.get("name", "")
            block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
            yield from self._open_block(key, block)
        if function.get("arguments"):
            yield self._block_delta("input_json_delta", "partial_json", function["arguments"])

    def _open_block(self, key: str, block: Json) -> Iterator[Json]:
        if self._open == key:
            return
        yield from self._close()
        self._open = key
        self._index += 1
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _block_delta(self, kind: str, field: str, piece: str) -> Json:
        self._bytes += len(piece.encode())
        delta = {"type": kind, field: piece}
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _close(self) -> Iterator[Json]:
        if self._open is not None:
            self._open = None
            yield {"type": "content_block_stop", "index": self._index}


def _text_blocks(said: Mapping[str, Any]) -> Iterator[Json]:
    text = said.get("content") or said.get("refusal")
    if text:
        yield {"type": "text", "text": text}


def _tool_block(call: Mapping[str, Any]) -> Json:
    function = call["function"]
    try:
        decoded = json.loads(function.get("arguments") or "{}")
    except ValueError:
        decoded = {}  # broken off: there is no object to show
    return {
        "type": "tool_use",
        "id": call["id"],
        "name": function["name"],
        "input": decoded if isinstance(decoded, dict) else {},
    }


def _stop_reason(finish_reason: object, said: Mapping[str, Any]) -> str:
    if said.get("refusal"):
        return "refusal"
    reason = _STOP_REASONS.get(str(finish_reason), "end_turn")
    # Some servers stop plainly after calls; a client would not run them.
    return "tool_use" if reason == "end_turn" and said.get("tool_calls") else reason


def _usage(usage: Mapping[str, Any] | None, estimate: TokenCounts) -> Json:
    if not usage:
        return {"input_tokens": estimate.input, "output_tokens": estimate.output}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "input_tokens": usage.get("prompt_tokens", 0) - cached,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.get("completion_tokens", 0),
    }
