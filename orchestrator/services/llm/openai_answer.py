"""Translates OpenAI chat completions into answers of the Messages API. Pure.

Called by the gateway for its last provider: `translate_completion` for a whole answer, a
`StreamTranslator` for a streamed one.
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


def translate_completion(completion: Mapping[str, Any], estimate: TokenCounts) -> Json:
    """A whole answer. `estimate` is used if the endpoint reports no usage.

    Raises errors.Temporary if the body is not a chat completion.
    """
    try:
        choice = completion["choices"][0]
        message = choice["message"]
        return {
            "id": f"msg_{completion.get('id', 'unknown')}",
            "type": "message",
            "role": "assistant",
            "model": completion.get("model", ""),
            "content": [*_text_blocks(message), *map(_tool_block, message.get("tool_calls") or ())],
            "stop_reason": _stop_reason(choice.get("finish_reason"), message),
            "stop_sequence": None,
            "usage": _usage(completion.get("usage"), estimate),
        }
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise errors.Temporary("the endpoint's answer is not a chat completion") from error


def translate_error(status: int, body: object) -> Json:
    """An error in the shape of the Messages API."""
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": str(message or f"status {status}")}}


class StreamTranslator:
    """Translates chunks into events: `feed` it each chunk, then call `finish`."""

    def __init__(self, estimate: TokenCounts) -> None:
        """`estimate` gives the input tokens if the endpoint reports no usage. Its output tokens
        are then counted as one per streamed byte."""
        self._estimate = estimate
        self._started = False
        self._open_block_key: str | None = None  # "text", or the index of a tool call
        self._block_index = -1  # of the newest content block
        self._started_calls: set[str] = set()
        self._finish_reason: str | None = None
        self._has_refusal = False
        self._usage: Mapping[str, Any] | None = None
        self._output_bytes = 0
        self._id = "unknown"

    def feed(self, chunk: Mapping[str, Any]) -> Iterator[Json]:
        """The events for one chunk.

        Raises errors.Temporary if the chunk holds an error, or mixes pieces of several tool calls.
        """
        if chunk.get("error"):
            raise errors.Temporary(str(translate_error(500, chunk)["error"]["message"]))
        if not self._started:
            self._started = True
            self._id = str(chunk.get("id", "unknown"))
            yield self._message_start(chunk)
        self._usage = chunk.get("usage") or self._usage
        for choice in (chunk.get("choices") or ())[:1]:
            yield from self._delta(choice.get("delta") or {})
            self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def finish(self) -> Iterator[Json]:
        """The events that end the message. Raises errors.Temporary if the stream broke off."""
        if self._finish_reason is None:
            raise errors.Temporary("the endpoint's answer broke off")
        yield from self._close()
        message = {"refusal": self._has_refusal, "tool_calls": self._started_calls}
        reason = _stop_reason(self._finish_reason, message)
        estimate = TokenCounts(input=self._estimate.input, output=self._output_bytes)
        yield {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": _usage(self._usage, estimate),
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
            "usage": {
                "input_tokens": 0,
                "output_tokens": 0,
            },  # message_delta gives the real figures
        }
        return {"type": "message_start", "message": message}

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[Json]:
        for name in ("content", "refusal"):
            if delta.get(name):
                self._has_refusal = self._has_refusal or name == "refusal"
                yield from self._open_block("text", {"type": "text", "text": ""})
                yield self._block_delta("text_delta", "text", delta[name])
        for call in delta.get("tool_calls") or ():
            yield from self._call(call)

    def _call(self, call: Mapping[str, Any]) -> Iterator[Json]:
        key = str(call.get("index", 0))
        function = call.get("function") or {}
        if self._open_block_key != key:
            if key in self._started_calls:
                raise errors.Temporary("the endpoint mixes the pieces of several tool calls")
            self._started_calls.add(key)
            call_id = call.get("id") or f"call_{self._id}_{key}"
            name = function.get("name", "")
            block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
            yield from self._open_block(key, block)
        if function.get("arguments"):
            yield self._block_delta("input_json_delta", "partial_json", function["arguments"])

    def _open_block(self, key: str, block: Json) -> Iterator[Json]:
        if self._open_block_key == key:
            return
        yield from self._close()
        self._open_block_key = key
        self._block_index += 1
        yield {"type": "content_block_start", "index": self._block_index, "content_block": block}

    def _block_delta(self, kind: str, field: str, piece: str) -> Json:
        self._output_bytes += len(piece.encode())
        delta = {"type": kind, field: piece}
        return {"type": "content_block_delta", "index": self._block_index, "delta": delta}

    def _close(self) -> Iterator[Json]:
        if self._open_block_key is not None:
            self._open_block_key = None
            yield {"type": "content_block_stop", "index": self._block_index}


def _text_blocks(message: Mapping[str, Any]) -> Iterator[Json]:
    text = message.get("content") or message.get("refusal")
    if text:
        yield {"type": "text", "text": text}


def _tool_block(call: Mapping[str, Any]) -> Json:
    function = call["function"]
    try:
        decoded = json.loads(function.get("arguments") or "{}")
    except (ValueError, RecursionError):
        decoded = {}  # the answer broke off in the middle of the arguments
    return {
        "type": "tool_use",
        "id": call["id"],
        "name": function["name"],
        "input": decoded if isinstance(decoded, dict) else {},
    }


def _stop_reason(finish_reason: object, message: Mapping[str, Any]) -> str:
    if message.get("refusal"):
        return "refusal"
    reason = _STOP_REASONS.get(str(finish_reason), "end_turn")
    # Some servers end with "stop" after tool calls. A client would then not run them.
    return "tool_use" if reason == "end_turn" and message.get("tool_calls") else reason


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
