"""Asks the model for one answer, and retries after temporary failures. Used by `conversation.py`.

The stream is read event by event, pings included: they show whether a silent model still thinks or
the connection is dead.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.failures import AssignmentFailed
from agent.generator.messages_api import ConnectionFailed, MessagesApi, Refusal
from agent.generator.order import Order
from agent.generator.progress import Progress
from agent.generator.reply import Reply
from agent.generator.tools import TOOLS
from agent.home.backoff import Backoff
from orchestrator.contract.event_stream import EventReader
from orchestrator.contract.uploads import shown
from orchestrator.contract.wire import FailureCode

PROMPT_FILE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "prompt.md")
UPLOAD_MAX = "{{UPLOAD_MAX}}"
"""Stands in the prompt for the limit that this installation has."""
FAILURES_PER_ANSWER = 6
FAILURES_WHEN_RETRIED = 3
"""What a failure counts that home has already retried itself."""
BACKOFF = Backoff(first_s=1.0, cap_s=15.0)
"""Half of each pause is fixed, so that all pauses together outlast a restart of home (15 s)."""
DONE = b"[DONE]"
"""Ends the streams of another API; some services send it in both."""
MALFORMED = "the model's answer makes no sense"
CACHED = {"type": "ephemeral"}
AUTH_ERRORS = frozenset({"authentication_error", "permission_error", "billing_error"})
HOMES_CODES = {
    str(code): code for code in (FailureCode.BUDGET_EXHAUSTED, FailureCode.PROVIDER_NO_CREDIT)
}
"""Codes of home's own errors that say more than the error's type."""
PASSING_ERRORS = frozenset({"rate_limit_error", "overloaded_error", "api_error", "timeout_error"})


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The process's time in seconds. A test passes another one."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


class Interrupted(Exception):
    """An answer failed or broke off, for a temporary reason."""

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, counts: int = 1
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.counts = counts  # how much it counts towards FAILURES_PER_ANSWER


class OutOfTime(Exception):
    """The order's time limit is reached."""


class Model:
    """The service behind home's gateway, used until the order's time limit."""

    def __init__(self, api: MessagesApi, order: Order, *, progress: Progress, clock: Clock) -> None:
        self._api = api
        self._order = order
        self._progress = progress
        self._clock = clock
        self._ends_at_s = clock.now() + order.limits.seconds
        with open(PROMPT_FILE, encoding="utf-8") as source:
            self._system = source.read().replace(UPLOAD_MAX, shown(order.upload_max_bytes))

    @property
    def seconds_left(self) -> float:
        return self._ends_at_s - self._clock.now()

    def answer(self, messages: list[dict[str, Any]]) -> Reply:
        """The next answer. One that broke off is returned if it holds a complete tool call.

        Raises AssignmentFailed, OutOfTime.
        """
        failures = 0
        while True:
            if self.seconds_left <= 0:
                raise OutOfTime
            reply = Reply()
            try:
                self._stream(messages, reply)
            except Interrupted as interruption:
                reply.output_tokens = self._progress.end_answer(0)
                if reply.calls:
                    reply.broke_off = True
                    return reply
                failures += interruption.counts
                self._pause(interruption, failures)
            else:
                self._progress.end_answer(reply.output_tokens)
                return reply

    def _pause(self, interruption: Interrupted, failures: int) -> None:
        wait_s = interruption.retry_after_s
        if wait_s is None:
            wait_s = (BACKOFF.ceiling_s(failures - 1) + BACKOFF.delay_s(failures - 1)) / 2
        if failures >= FAILURES_PER_ANSWER or wait_s >= self.seconds_left:
            raise AssignmentFailed(FailureCode.PROVIDER_UNAVAILABLE, interruption.message)
        self._progress.show(f"{interruption.message}; asking again"[:200])
        self._clock.sleep(wait_s)

    def _stream(self, messages: list[dict[str, Any]], reply: Reply) -> None:
        try:
            with self._api.stream(self._request(messages)) as pieces:
                self._read(pieces, reply)
        except Refusal as refusal:
            raise translate_refusal(refusal) from refusal
        except ConnectionFailed as error:
            raise Interrupted(str(error)) from error

    def _request(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "model": self._order.model,
            "max_tokens": self._order.max_tokens,
            # Tools precede the system prompt, so this mark caches both.
            "system": [{"type": "text", "text": self._system, "cache_control": CACHED}],
            "tools": TOOLS,
            "messages": with_cache_marks(messages),
            "stream": True,
        }

    def _read(self, chunks: Iterable[bytes], reply: Reply) -> None:
        silence_s = self._order.limits.silence_seconds
        last_event_at_s = self._clock.now()
        for event in events(chunks):
            now_s = self._clock.now()
            if now_s > self._ends_at_s:
                raise OutOfTime
            if event["type"] == "ping":
                if now_s - last_event_at_s > silence_s:
                    raise Interrupted(f"the model said nothing for {silence_s:g} s")
                continue
            last_event_at_s = now_s
            try:
                if event["type"] == "error":
                    raise translate_event(event)
                reply.feed(event)
                self._follow(event)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise Interrupted(MALFORMED) from error
            if event["type"] == "message_stop":
                return
        if reply.stop_reason is None:
            raise Interrupted("the model's answer broke off")
        reply.end()  # the last event is missing

    def _follow(self, event: dict[str, Any]) -> None:
        if event["type"] == "content_block_start":
            self._progress.start_tool(str(event["content_block"].get("name", "")))
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            piece = delta.get("partial_json") or delta.get("text") or delta.get("thinking") or ""
            if piece:
                self._progress.stream(piece)


def events(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The objects in a stream of server-sent events. Each names its type. Raises Interrupted."""
    reader = EventReader()
    try:
        for chunk in chunks:
            for data in reader.feed(chunk):
                if data != DONE:
                    yield _event(data)
    except (ValueError, RecursionError) as error:
        raise Interrupted(MALFORMED) from error


def _event(data: bytes) -> dict[str, Any]:
    """Raises ValueError, RecursionError."""
    event = json.loads(data)
    if isinstance(event, dict) and "type" not in event and event.get("error"):
        return {**event, "type": "error"}
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise ValueError("no event")
    return event


def with_cache_marks(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A copy of the messages in which the last two of the user end in a cache mark.

    The newest mark writes the cache for the next request; the one before finds what the last wrote.
    """
    marked = list(messages)
    user_indexes = [index for index, message in enumerate(messages) if message["role"] == "user"]
    for index in user_indexes[-2:]:
        *blocks, last = marked[index]["content"]
        content = [*blocks, {**last, "cache_control": CACHED}]
        marked[index] = {**marked[index], "content": content}
    return marked


def translate_refusal(refusal: Refusal) -> AssignmentFailed | Interrupted:
    """The failure that an HTTP status other than 200 means."""
    error, headers = refusal.error, refusal.headers
    kind = str(error.get("type") or "")
    message = str(error.get("message") or kind or f"status {refusal.status}")[:500]
    code = str(error.get("code"))
    if code in HOMES_CODES:
        return AssignmentFailed(HOMES_CODES[code], message)
    failure = _translate(kind, refusal.status, message, _retry_after_s(headers))
    if isinstance(failure, Interrupted) and headers.get("x-should-retry") == "false":
        failure.counts = FAILURES_WHEN_RETRIED
    return failure


def translate_event(event: dict[str, Any]) -> AssignmentFailed | Interrupted:
    """The failure that an error in the middle of a stream means."""
    error = event.get("error") or {}
    if isinstance(error, str):
        error = {"type": "api_error", "message": error}
    message = str(error.get("message", ""))[:500]
    code = str(error.get("code"))
    if code in HOMES_CODES:
        return AssignmentFailed(HOMES_CODES[code], message)
    return _translate(error.get("type"), 200, message, None)


def _translate(
    kind: str | None, status: int, message: str, retry_after_s: float | None
) -> AssignmentFailed | Interrupted:
    if kind in AUTH_ERRORS or status in (401, 402, 403):
        return AssignmentFailed(FailureCode.PROVIDER_AUTH, f"the model refused our key: {message}")
    if kind in PASSING_ERRORS or status in (408, 409, 429) or status >= 500:
        return Interrupted(f"the model is busy: {message}", retry_after_s=retry_after_s)
    return AssignmentFailed(
        FailureCode.GENERATION_FAILED, f"the model refused the request: {message}"
    )


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None
