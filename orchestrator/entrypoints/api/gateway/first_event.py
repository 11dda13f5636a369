"""Reads an answer of a provider until it is clear what it is. `provider_chain` uses it.

A stream is read until its first event has ended, anything else to its end. From then on an answer
belongs to the client, and no other provider is asked.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.contract import json_bounds
from orchestrator.contract.event_stream import EventReader
from orchestrator.domain import errors
from orchestrator.domain.llm import provider_errors
from orchestrator.domain.llm.provider_errors import ProviderError
from orchestrator.entrypoints.api.gateway import wire
from orchestrator.entrypoints.api.gateway.last_chunks import LAST_CHUNK_S, until_over
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
_STREAM_TYPE = wire.STREAM_HEAD.headers["content-type"]
_DONE = b"[DONE]"
_END_MARKS = (b'"message_stop"', b'"message_delta"', b'"error"', _DONE)
# Events of the Messages API with which an answer has begun, or ended. A ping is no beginning, and
# neither is what only this provider knows: an error may come after it, and the next one be asked.
_BEGINNINGS = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop"}
    | {"message_delta", "message_stop", "message", "error"}
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response that is an answer, or the beginning of one."""

    response: ProviderResponse
    first_chunk: bytes  # read from `response` already
    is_stream: bool = False
    last_chunk_s: float = LAST_CHUNK_S  # once the reason to stop is known

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The whole body. Raises errors.Temporary if the connection breaks, or a stream ends
        without an end.

        A stream ends with the event that says so: some servers keep the connection open, and a
        client would wait for nothing. Others leave it out: then it is added.
        """
        end = _StreamEnd()
        yield self.first_chunk
        if not self.is_stream:
            async for chunk in self.response.chunks:
                yield chunk
            return
        end.read(self.first_chunk)
        chunks = until_over(self.response.chunks, lambda: end.may_be_over, self.last_chunk_s)
        async with aclosing(chunks):
            while not end.is_over:
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    break
                end.read(chunk)
                yield chunk
        if end.lacks_last_event:
            yield wire.frames([{"type": "message_stop"}])
        elif not end.is_over and end.is_readable:
            raise errors.Temporary("the provider's stream ended before the answer did")


class _StreamEnd:
    """Looks for the last event of a stream."""

    def __init__(self) -> None:
        self._reader = EventReader()
        self._has_last_event = False  # or an error in place of it
        self.is_readable = True  # no event has been too long
        self.is_over = False  # nothing that belongs to it will come
        self.may_be_over = False  # it has its reason to stop: only the last event is missing

    @property
    def lacks_last_event(self) -> bool:
        return self.may_be_over and not self._has_last_event

    def read(self, chunk: bytes) -> None:
        """Read the next chunk of the stream."""
        try:
            events = self._reader.feed(chunk) if self.is_readable else []
        except ValueError:
            self.is_readable, events = False, []
        for event in events:
            if any(mark in event for mark in _END_MARKS):
                self._read(event)

    def _read(self, event: bytes) -> None:
        if event == _DONE:  # of another API, in place of the last event
            self.is_over |= self.may_be_over
            return
        document = _decoded(event)
        if document.get("type") in ("message_stop", "error"):
            self.is_over = self._has_last_event = True
        elif document.get("type") == "message_delta":
            delta = document.get("delta")
            self.may_be_over |= isinstance(delta, dict) and bool(delta.get("stop_reason"))


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
            events = _from_the_beginning(reader.feed(chunk))
            if events:
                break
            if len(raw) > _FIRST_EVENT_MAX_BYTES:
                raise NoAnswer("the provider's stream doesn't begin")
        events = events or _from_the_beginning(reader.end())
    except ValueError as error:
        raise NoAnswer(f"the provider's stream is none: {error}") from error
    # A server that knows no streams sends its answer, or an error, as a whole.
    document = _decoded(events[0] if events else raw)
    if _is_error(document):
        return _refusal_in_answer(response.head, document)
    if whole_message.is_message(document):
        return _streamed(response, document)
    if not events or not isinstance(document.get("type"), str):
        raise NoAnswer("the provider's answer is no stream of the Messages API")
    return Answer(response=_typed(response, _STREAM_TYPE), first_chunk=raw, is_stream=True)


def _from_the_beginning(events: Iterable[bytes]) -> list[bytes]:
    """The events from the first one on that is a beginning, or no event at all."""
    return [*itertools.dropwhile(_is_preface, events)]


def _is_preface(event: bytes) -> bool:
    kind = _decoded(event).get("type")
    return isinstance(kind, str) and kind not in _BEGINNINGS


def _streamed(response: ProviderResponse, message: Mapping[str, Any]) -> Answer:
    """A message that has come as a whole, for a client that reads a stream."""
    frames = wire.frames(whole_message.events_of(message))
    return Answer(response=_typed(response, _STREAM_TYPE), first_chunk=frames)


def _typed(response: ProviderResponse, content_type: str) -> ProviderResponse:
    """With the content type that it should have: clients go by that, and servers err."""
    given = response.head.headers.get("content-type", "")
    if _media_type(given) == _media_type(content_type):
        return response
    headers = {**response.head.headers, "content-type": content_type}
    return replace(response, head=replace(response.head, headers=headers))


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


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
    return Answer(response=_typed(response, "application/json"), first_chunk=bytes(raw))


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
