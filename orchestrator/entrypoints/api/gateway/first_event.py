"""Reads an answer of a provider until it is clear what it is. `provider_chain` uses it.

A stream is read until its first event has ended, anything else to its end. From then on an answer
belongs to the client, and no other provider is asked.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.contract import json_bounds
from orchestrator.contract.event_stream import EventReader
from orchestrator.domain import errors
from orchestrator.domain.llm import provider_errors
from orchestrator.domain.llm.provider_errors import ProviderError
from orchestrator.entrypoints.api.gateway import wire
from orchestrator.entrypoints.api.gateway.providers.provider import (
    NoAnswer,
    ProviderRequest,
    ProviderResponse,
)
from orchestrator.entrypoints.api.gateway.wire import Head
from orchestrator.services.llm import openai_answer, whole_message

_ERROR_MAX_BYTES = 64 * 1024
_FIRST_EVENT_MAX_BYTES = 1024**2
_WHOLE_MAX_BYTES = 8 * 1024**2
_VALUES_MAX = 50_000  # in an answer, or in an event
_STATUS_OF_ERROR = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}  # all others: 500


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response that is an answer, or the beginning of one."""

    response: ProviderResponse
    first_chunk: bytes  # read from `response` already
    is_stream: bool = False

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The whole body. Raises errors.Temporary if the connection breaks.

        A stream ends with the event that says so: some servers keep the connection open, and a
        client would wait for nothing.
        """
        end = _StreamEnd()
        yield self.first_chunk
        if self.is_stream and end.is_in(self.first_chunk):
            return
        async for chunk in self.response.chunks:
            yield chunk
            if self.is_stream and end.is_in(chunk):
                return


class _StreamEnd:
    """Looks for the last event of a stream."""

    def __init__(self) -> None:
        self._reader: EventReader | None = EventReader()  # None: it can't be read any more

    def is_in(self, chunk: bytes) -> bool:
        """Whether this chunk, the next one, has its end."""
        try:
            events = self._reader.feed(chunk) if self._reader else []
        except ValueError:
            self._reader, events = None, []
        return any(
            b'"message_stop"' in event and _decoded(event).get("type") == "message_stop"
            for event in events
        )


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A response that is an error, in the shape of the Messages API."""

    head: Head
    body: bytes
    error: ProviderError


async def read(response: ProviderResponse, request: ProviderRequest) -> Answer | Refusal:
    """Read enough of a response. Closes it unless it is an answer.

    Raises NoAnswer if it makes no sense, and errors.Temporary if the connection breaks.
    """
    is_answer = False
    try:
        if response.head.status >= 400:
            return await _read_error(response)
        is_stream = request.wants_stream
        result = await (_read_stream(response) if is_stream else _read_whole(response, request))
        is_answer = isinstance(result, Answer)
        return result
    finally:
        if not is_answer:
            await response.close()


async def _read_stream(response: ProviderResponse) -> Answer | Refusal:
    reader = EventReader(_FIRST_EVENT_MAX_BYTES)
    raw = b""
    events: list[bytes] = []
    try:
        async for chunk in response.chunks:
            raw += chunk
            events = _without_pings(reader.feed(chunk))
            if events:
                break
            if len(raw) > _FIRST_EVENT_MAX_BYTES:
                raise NoAnswer("the provider's stream doesn't begin")
        events = events or _without_pings(reader.end())
    except ValueError as error:
        raise NoAnswer(f"the provider's stream is none: {error}") from error
    # A server that knows no streams sends its answer, or an error, as a whole.
    document = _decoded(events[0] if events else raw)
    if _is_error(document):
        return _refusal_in_answer(response.head, document)
    if not events and whole_message.is_message(document):
        return _streamed(response, document)
    if not events or not isinstance(document.get("type"), str):
        raise NoAnswer("the provider's answer is no stream of the Messages API")
    return Answer(response=response, first_chunk=raw, is_stream=True)


def _without_pings(events: Iterable[bytes]) -> list[bytes]:
    """A ping is no beginning: an error may come after it, and the next provider be asked."""
    return [event for event in events if _decoded(event).get("type") != "ping"]


def _streamed(response: ProviderResponse, message: Mapping[str, Any]) -> Answer:
    """A message that has come as a whole, for a client that reads a stream."""
    headers = {**response.head.headers, **wire.STREAM_HEAD.headers}
    head = Head(status=response.head.status, headers=headers)
    frames = wire.frames(whole_message.events_of(message))
    return Answer(response=replace(response, head=head), first_chunk=frames)


async def _read_whole(response: ProviderResponse, request: ProviderRequest) -> Answer | Refusal:
    raw = bytearray()
    async for chunk in response.chunks:
        raw += chunk
        if len(raw) > _WHOLE_MAX_BYTES:
            raise NoAnswer("the provider's answer doesn't end")
    document = _decoded(bytes(raw))
    if _is_error(document):
        return _refusal_in_answer(response.head, document)
    is_count = request.counts_tokens and isinstance(document.get("input_tokens"), int)
    if not is_count and not whole_message.is_message(document):
        raise NoAnswer("the provider's answer is no message of the Messages API")
    return Answer(response=response, first_chunk=bytes(raw))


async def _read_error(response: ProviderResponse) -> Refusal:
    raw = b""
    with suppress(errors.Temporary):  # even a part of an error message helps
        async for chunk in response.chunks:
            raw += chunk
            if len(raw) > _ERROR_MAX_BYTES:
                break
    document = _value(raw)
    error = provider_errors.read(document)
    if error.is_native:
        return Refusal(head=response.head, body=raw, error=error)
    return _translated(response.head, document, error)


def _is_error(document: Mapping[str, Any]) -> bool:
    return document.get("type") == "error" or provider_errors.error_of(document) is not None


def _refusal_in_answer(head: Head, document: Mapping[str, Any]) -> Refusal:
    """An error that comes with status 200."""
    error = provider_errors.read(document)
    status, _ = openai_answer.find_error(document) or (500, {})
    status = _STATUS_OF_ERROR.get(error.kind, status)
    json_head = Head(status=status, headers={**head.headers, "content-type": "application/json"})
    if error.is_native:
        return Refusal(head=json_head, body=json.dumps(document).encode(), error=error)
    return _translated(json_head, document, error)


def _translated(head: Head, document: object, error: ProviderError) -> Refusal:
    """An error in a shape that clients of the Messages API don't know, in theirs."""
    body = json.dumps(openai_answer.translate_error(head.status, document)).encode()
    headers = {**head.headers, "content-type": "application/json"}
    return Refusal(head=Head(status=head.status, headers=headers), body=body, error=error)


def _decoded(raw: bytes) -> dict[str, Any]:
    value = _value(raw)
    return value if isinstance(value, dict) else {}


def _value(raw: bytes) -> object:
    try:
        return json_bounds.decode(raw, _VALUES_MAX)
    except ValueError:
        return None
