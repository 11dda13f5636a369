"""Translates OpenAI chat completions into answers of the Messages API. Pure.

Called by the gateway for its last provider: `translate_completion` for a whole answer, a
`StreamTranslator` for a streamed one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.contract import json_bounds, surrogates
from orchestrator.domain import errors
from orchestrator.domain.llm import provider_errors
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.services.llm import openai_wire
from orchestrator.services.llm.openai_blocks import Blocks
from orchestrator.services.llm.openai_wire import Choice, Message, ToolCall, Usage

Json = dict[str, Any]

_VALUES_MAX = 50_000  # in the arguments of a call

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


def translate_completion(document: object, estimate: TokenCounts, default_id: str) -> Json:
    """A whole answer. `estimate` is used if the endpoint reports no usage, `default_id` if it gives
    no id.

    Raises errors.Temporary if the document is not a chat completion.
    """
    completion = openai_wire.parse(document)
    choice = completion.choices[0] if completion.choices else Choice()
    if choice.message is None:
        raise errors.Temporary("the endpoint's answer is not a chat completion: it has no message")
    message = choice.message
    text = surrogates.paired(message.content or message.refusal)
    blocks: list[Json] = [{"type": "text", "text": text}] if text else []
    answer_id = completion.id or default_id
    call_ids: set[str] = set()
    for number, call in enumerate(message.tool_calls):
        is_new = call.id and call.id not in call_ids
        call_id = call.id if is_new else f"call_{answer_id}_{number}"
        call_ids.add(call_id)
        blocks.append(_tool_block(call, call_id))
    return {
        "id": f"msg_{answer_id}",
        "type": "message",
        "role": "assistant",
        "model": completion.model,
        "content": blocks,
        "stop_reason": _stop_reason(
            choice.finish_reason,
            has_refusal=bool(message.refusal),
            has_calls=bool(message.tool_calls),
        ),
        "stop_sequence": None,
        "usage": _usage(completion.usage, estimate),
    }


def find_error(document: object) -> tuple[int, Json] | None:
    """The status and the error of a document that came with status 200 and is an error."""
    error = provider_errors.error_of(document)
    if error is None:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code <= 599 else 500
    return status, translate_error(status, document)


def translate_error(status: int, body: object) -> Json:
    """An error in the shape of the Messages API."""
    message = provider_errors.read(body).message
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message or f"status {status}"}}


class StreamTranslator:
    """Translates chunks into events: `feed` it each chunk, then call `finish`."""

    def __init__(self, estimate: TokenCounts, default_id: str) -> None:
        """`estimate` gives the input tokens if the endpoint reports no usage. Its output tokens
        are then counted as one per streamed byte. `default_id` is used if it gives no id."""
        self._estimate = estimate
        self._default_id = default_id
        self._id = ""  # set with the first chunk
        self._model = ""
        self._has_started = False
        self._blocks = Blocks("")
        self._finish_reason: str | None = None
        self._has_refusal = False
        self._usage: Usage | None = None

    @property
    def may_be_over(self) -> bool:
        """Whether all that can still come is the usage, or a repetition."""
        return self._finish_reason is not None

    def feed(self, document: object) -> Iterator[Json]:
        """The events for one chunk. The message begins with its first content: many an endpoint
        sends an empty chunk at once, and then reads the prompt for minutes.

        Raises errors.Temporary if it is no chunk, or a piece of no tool call that goes on.
        """
        if (error := find_error(document)) is not None:
            yield self._error(error[1])
            return
        chunk = openai_wire.parse(document)
        if not self._id:
            self._id, self._model = chunk.id or self._default_id, chunk.model
            self._blocks = Blocks(f"call_{self._id}")
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices[:1]:
            if choice.delta is not None:
                yield from self._delta(choice.delta)
            self._finish_reason = choice.finish_reason or self._finish_reason

    def finish(self, *, is_done: bool) -> Iterator[Json]:
        """The events that end the message. `is_done`: the endpoint said that it was the end.

        Raises errors.Temporary if the stream broke off.
        """
        if not self._id or (self._finish_reason is None and not is_done):
            raise errors.Temporary("the endpoint's answer broke off")
        yield from self._start()
        yield from self._blocks.finish()
        reason = _stop_reason(
            self._finish_reason, has_refusal=self._has_refusal, has_calls=self._blocks.has_calls
        )
        estimate = TokenCounts(input=self._estimate.input, output=self._blocks.output_bytes)
        yield {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": _usage(self._usage, estimate),
        }
        yield {"type": "message_stop"}

    def _error(self, error: Json) -> Json:
        """An error instead of the answer is passed on. One in its midst breaks it off."""
        if self._has_started:
            raise errors.Temporary(str(error["error"]["message"]))
        return error

    def _start(self) -> Iterator[Json]:
        if self._has_started:
            return
        self._has_started = True
        message: Json = {
            "id": f"msg_{self._id}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            # message_delta gives the real figures
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        yield {"type": "message_start", "message": message}

    def _delta(self, delta: Message) -> Iterator[Json]:
        self._has_refusal = self._has_refusal or bool(delta.refusal)
        for text in filter(None, (delta.content, delta.refusal)):
            yield from self._start()
            yield from self._blocks.add_text(text)
        for piece in delta.tool_calls:
            yield from self._start()
            yield from self._blocks.add_call(piece)


def _arguments(text: str) -> Json | None:
    """The arguments of a call, or None if they are no JSON object."""
    try:
        decoded = json_bounds.decode(surrogates.paired(text).encode(), _VALUES_MAX)
    except ValueError:
        return None
    return decoded if isinstance(decoded, dict) else None


def _tool_block(call: ToolCall, call_id: str) -> Json:
    # An answer may break off in the middle of the arguments.
    arguments = _arguments(call.function.arguments) or {}
    if not call.function.name:
        raise errors.Temporary("the endpoint's answer has a tool call without a name")
    return {"type": "tool_use", "id": call_id, "name": call.function.name, "input": arguments}


def _stop_reason(finish_reason: str | None, *, has_refusal: bool, has_calls: bool) -> str:
    if has_refusal:
        return "refusal"
    reason = _STOP_REASONS.get(finish_reason or "stop", "end_turn")
    # Some servers end with "stop" after tool calls, and a client would not run them; or with
    # "tool_calls" after none, and it would look for them.
    if reason in ("end_turn", "tool_use"):
        return "tool_use" if has_calls else "end_turn"
    return reason


def _usage(usage: Usage | None, estimate: TokenCounts) -> Json:
    if usage is None:
        return {"input_tokens": estimate.input, "output_tokens": estimate.output}
    return {
        "input_tokens": usage.prompt_tokens - usage.cached,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.completion_tokens,
    }
