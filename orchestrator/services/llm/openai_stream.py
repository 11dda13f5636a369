"""Takes the bytes of a streamed chat completion apart, and translates them. Pure.

Called by the gateway. Some endpoints know no streams, or none for some requests: they answer with
one JSON object, which becomes a stream here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.contract import json_bounds
from orchestrator.contract.event_stream import EventReader
from orchestrator.domain import errors
from orchestrator.domain.llm.requests import ModelRequest
from orchestrator.services.llm import metering, openai_answer, whole_message
from orchestrator.services.llm.openai_answer import StreamTranslator

Json = dict[str, Any]

_EVENT_MAX_BYTES = 1024**2
_WHOLE_MAX_BYTES = 8 * 1024**2
_VALUES_MAX = 50_000  # in an answer, or in an event
_BLANK = b" \t\r\n\xef\xbb\xbf"  # with a byte order mark


class CompletionStream:
    """`feed` it each piece of the answer until it `is_done`, then call `end`. Both give events of
    the Messages API. They raise errors.Temporary or ValueError if it isn't a chat completion."""

    def __init__(self, request: ModelRequest, answer_id: str) -> None:
        """`answer_id` is our name of the answer, which no other has."""
        self._request = request
        self._answer_id = answer_id
        self._translator = StreamTranslator(metering.worst_case(request), answer_id)
        self._reader = EventReader(_EVENT_MAX_BYTES)
        self._has_begun = False
        self._whole: bytearray | None = None  # an answer that is no stream
        self.is_done = False  # the endpoint has said so; some keep the connection open

    @property
    def may_be_over(self) -> bool:
        """Whether it is whole if nothing more comes."""
        return self._translator.may_be_over

    def feed(self, raw: bytes) -> Iterator[Json]:
        """The events for the next bytes."""
        if not self._has_begun:
            raw = raw.lstrip(_BLANK)
            self._has_begun = bool(raw)
            self._whole = bytearray() if raw.startswith(b"{") else None
        if self._whole is None:
            for data in self._reader.feed(raw):
                yield from self._read(data)
            return
        self._whole += raw
        if len(self._whole) > _WHOLE_MAX_BYTES:
            raise errors.Temporary("the endpoint's answer doesn't end")

    def end(self) -> Iterator[Json]:
        """The events that end the message."""
        if self._whole is not None:
            yield from self._whole_events(bytes(self._whole))
            return
        for data in self._reader.end():
            yield from self._read(data)
        yield from self._translator.finish(is_done=self.is_done)

    def _read(self, data: bytes) -> Iterator[Json]:
        self.is_done = self.is_done or data.strip() == b"[DONE]"
        if not self.is_done:
            yield from self._translator.feed(json_bounds.decode(data, _VALUES_MAX))

    def _whole_events(self, raw: bytes) -> Iterator[Json]:
        document = json_bounds.decode(raw, _VALUES_MAX)
        if error := openai_answer.find_error(document):
            yield error[1]
            return
        estimate = metering.lost_answer(self._request)
        message = openai_answer.translate_completion(document, estimate, self._answer_id)
        yield from whole_message.events_of(message)
