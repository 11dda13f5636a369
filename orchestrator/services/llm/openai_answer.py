"""Translates OpenAI chat completions into answers of the Messages API. Pure.

Called by the gateway for its last provider: `translate_completion` for a whole answer, a
`StreamTranslator` for a streamed one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.contract import json_bounds, surrogates
from orchestrator.domain import errors
from orchestrator.domain.llm import provider_errors, thoughts, tool_ids
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.services.llm import openai_wire
from orchestrator.services.llm.openai_blocks import Blocks
from orchestrator.services.llm.openai_wire import Choice, Message, ToolCall, Usage

Json = dict[str, Any]

_VALUES_MAX = 50_000  # in the arguments of a call

# Why an answer ended, as endpoints say it: OpenAI's words, then those of others, all in small
# letters. What isn't here is an end like any other (`eos`, `end_turn`, `stop_sequence`), also if
# it has not been said why.
_STOP_REASONS = {
    reason: stop_reason
    for stop_reason, reasons in {
        "max_tokens": (
            *("length", "max_tokens", "max_output_tokens", "max_new_tokens", "max_length"),
            *("length_limit", "token_limit", "model_length"),
        ),
        "model_context_window_exceeded": (
            *("model_context_window_exceeded", "context_length_exceeded", "context_length"),
        ),
        "refusal": (
            *("content_filter", "content_filtered", "refusal", "safety", "sensitive", "blocked"),
            *("prohibited_content", "blocklist", "recitation", "spii", "guardrail_intervened"),
        ),
    }.items()
    for reason in reasons
}
# The endpoint gave the answer up: a part of it is no answer.
_GIVEN_UP = frozenset(
    {"error", "server_error", "network_error", "insufficient_system_resource", "timeout"}
    | {"abort", "aborted", "cancel", "cancelled", "canceled"}
    | {"malformed_function_call", "unexpected_tool_call"}
)
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


def translate_completion(document: object, estimate: TokenCounts, answer_id: str) -> Json:
    """A whole answer. `estimate` is used if the endpoint reports no usage; `answer_id` is our name
    of the answer, which no other has.

    Raises errors.Temporary if the document is not a chat completion.
    """
    completion = openai_wire.parse(document)
    choice = completion.choice(completion.first_index) or Choice()
    if choice.message is None:
        raise errors.Temporary("the endpoint's answer is not a chat completion: it has no message")
    message = choice.message
    text = surrogates.paired(message.content or message.refusal)
    blocks: list[Json] = []
    if message.thought:
        field, thought = message.thought
        signature = thoughts.signature(field)
        blocks = [
            {"type": "thinking", "thinking": surrogates.paired(thought), "signature": signature}
        ]
    if text:
        blocks.append({"type": "text", "text": text})
    for number, call in enumerate(message.calls):
        blocks.append(_tool_block(call, tool_ids.issue(answer_id, number, call.id)))
    return {
        "id": f"msg_{answer_id}",
        "type": "message",
        "role": "assistant",
        "model": completion.model,
        "content": blocks,
        "stop_reason": _stop_reason(
            choice.finish_reason,
            has_refusal=bool(message.refusal),
            has_calls=bool(message.calls),
        ),
        "stop_sequence": None,
        "usage": _usage(completion.reported, estimate),
    }


def find_error(document: object) -> tuple[int, Json] | None:
    """The status and the error of a document that came with status 200 and is an error."""
    error = provider_errors.error_of(document)
    if error is None:
        return None
    status = provider_errors.status_in(document) or 500
    return status, translate_error(status, document)


def translate_error(status: int, body: object) -> Json:
    """An error in the shape of the Messages API."""
    message = provider_errors.read(body).message
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message or f"status {status}"}}


class StreamTranslator:
    """Translates chunks into events: `feed` it each chunk, then call `finish`."""

    def __init__(self, estimate: TokenCounts, answer_id: str) -> None:
        """`estimate` gives the input tokens if the endpoint reports no usage. Its output tokens
        are then counted as one per streamed byte. `answer_id` is our name of the answer."""
        self._estimate = estimate
        self._answer_id = answer_id
        self._model: str | None = None  # set with the first chunk
        self._has_started = False
        self._choice: int | None = None  # the number of the one that is read: the first that came
        self._blocks = Blocks(answer_id)
        self._finish_reason = ""
        self._goes_on = False  # after a reason to stop: that doesn't say when it is over
        self._has_refusal = False
        self._usage: Usage | None = None

    @property
    def may_be_over(self) -> bool:
        """Whether all that can still come is the usage, or a repetition."""
        return bool(self._finish_reason) and not self._goes_on

    def feed(self, document: object) -> Iterator[Json]:
        """The events for one chunk. The message begins with its first content: many an endpoint
        sends an empty chunk at once, and then reads the prompt for minutes.

        Raises errors.Temporary if it is no chunk, or a piece of no tool call that goes on.
        """
        if (error := find_error(document)) is not None:
            yield self._error(error[1])
            return
        chunk = openai_wire.parse(document)
        self._model = self._model or chunk.model
        self._usage = chunk.reported or self._usage
        if self._choice is None:
            self._choice = chunk.first_index
        if (choice := chunk.choice(self._choice)) is not None:
            yield from self._delta(self._piece(choice))
            self._finish_reason = choice.finish_reason or self._finish_reason

    def finish(self, *, is_done: bool) -> Iterator[Json]:
        """The events that end the message. `is_done`: the endpoint said that it was the end.

        Raises errors.Temporary if the stream broke off.
        """
        if self._model is None or (not self._finish_reason and not is_done):
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
            "id": f"msg_{self._answer_id}",
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

    def _piece(self, choice: Choice) -> Message:
        """What a chunk adds. Some endpoints send the whole message instead, others as well."""
        piece = choice.delta or Message()
        if piece.is_empty and choice.message is not None and not self._has_started:
            piece = choice.message
        self._goes_on = self._goes_on or bool(self._finish_reason and not piece.is_empty)
        return piece

    def _delta(self, delta: Message) -> Iterator[Json]:
        self._has_refusal = self._has_refusal or bool(delta.refusal)
        if delta.thought:
            yield from self._start()
            yield from self._blocks.add_thought(*delta.thought)
        for text in filter(None, (delta.content, delta.refusal)):
            yield from self._start()
            yield from self._blocks.add_text(text)
        for piece in delta.calls:
            yield from self._start()
            yield from self._blocks.add_call(piece)


def _arguments(text: str) -> Json | None:
    """The arguments of a call, or None if they are no JSON object."""
    try:
        decoded = json_bounds.decode(surrogates.paired(text).encode(), _VALUES_MAX)
        if isinstance(decoded, str):  # encoded twice
            decoded = json_bounds.decode(surrogates.paired(decoded).encode(), _VALUES_MAX)
    except ValueError:
        return None
    return decoded if isinstance(decoded, dict) else None


def _tool_block(call: ToolCall, call_id: str) -> Json:
    # An answer may break off in the middle of the arguments.
    arguments = _arguments(call.function.arguments) or {}
    if not call.function.name:
        raise errors.Temporary("the endpoint's answer has a tool call without a name")
    return {"type": "tool_use", "id": call_id, "name": call.function.name, "input": arguments}


def _stop_reason(finish_reason: str, *, has_refusal: bool, has_calls: bool) -> str:
    """Raises errors.Temporary if the endpoint says that it gave up."""
    if finish_reason in _GIVEN_UP:
        raise errors.Temporary(f"the endpoint's answer broke off: {finish_reason}")
    if has_refusal:
        return "refusal"
    # Some servers end with "stop" after tool calls, and a client would not run them; or with
    # "tool_calls" after none, and it would look for them.
    return _STOP_REASONS.get(finish_reason) or ("tool_use" if has_calls else "end_turn")


def _usage(usage: Usage | None, estimate: TokenCounts) -> Json:
    if usage is None:
        return {"input_tokens": estimate.input, "output_tokens": estimate.output}
    # No prompt has no tokens: then nobody has counted them.
    prompt, output, total = usage.prompt_tokens or None, usage.completion_tokens, usage.total_tokens
    if output is None and total is not None and prompt is not None:
        output = max(0, total - prompt)
    elif output is None:  # the dearer part
        output = estimate.output if total is None else min(estimate.output, total)
    if prompt is None:
        prompt = estimate.input if total is None else max(0, total - output)
    cached = usage.cached_of(prompt)
    return {
        "input_tokens": prompt - cached,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": output,
    }
