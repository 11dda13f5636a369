"""Asks the model for one answer, and again when that fails in passing. For `conversation.py`.

The stream is read event by event, pings included: they are what tells a model that thinks for
minutes from one that will never say anything again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2

from agent.generator.order import Order
from agent.generator.progress import Progress
from agent.generator.reply import Reply
from agent.generator.tools import TOOLS
from agent.home.backoff import Backoff
from agent.protocol import AssignmentFailed, FailureCode

PROMPT_FILE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "prompt.md")
SILENCE_LIMIT_S = 180.0
"""The service sends pings while a model thinks, so this much silence is a dead connection. Before
the first event home may let us wait for our turn."""
STALL_LIMIT_S = 180.0
"""This long nothing but pings: the answer will not come."""
FAILURES_PER_ANSWER = 6
FAILURES_WHEN_RETRIED = 3
"""What a failure counts for that home has tried again for as long as it cares to."""
BACKOFF = Backoff(first_s=1.0, cap_s=15.0)
"""Half of each pause is sure, so that all of them outlast a restart of home (15 s together)."""
CACHED = {"type": "ephemeral"}
AUTH_ERRORS = frozenset({"authentication_error", "permission_error", "billing_error"})
PASSING_ERRORS = frozenset({"rate_limit_error", "overloaded_error", "api_error", "timeout_error"})


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Time as the process sees it, in seconds; a test has another."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


class Interrupted(Exception):
    """An answer that failed or broke off, for a reason that may pass."""

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, counts: int = 1
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.counts = counts  # towards FAILURES_PER_ANSWER


class OutOfTime(Exception):
    """The order's seconds are over."""


class Model:
    """The service behind home's gateway, for as long as the order's seconds last."""

    def __init__(
        self, client: anthropic.Anthropic, order: Order, *, progress: Progress, clock: Clock
    ) -> None:
        self._client = client
        self._order = order
        self._progress = progress
        self._clock = clock
        self._ends_at_s = clock.now() + order.limits.seconds
        with open(PROMPT_FILE, encoding="utf-8") as source:
            self._system = source.read()

    @property
    def seconds_left(self) -> float:
        return self._ends_at_s - self._clock.now()

    def answer(self, messages: list[dict[str, Any]]) -> Reply:
        """The next answer. One that broke off counts if a tool call in it was finished.

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
                reply.output_tokens = self._progress.answered(0)
                if reply.calls:
                    reply.broke_off = True
                    return reply
                failures += interruption.counts
                self._pause(interruption, failures)
            else:
                self._progress.answered(reply.output_tokens)
                return reply

    def _pause(self, interruption: Interrupted, failures: int) -> None:
        wait_s = interruption.retry_after_s
        if wait_s is None:
            wait_s = (BACKOFF.ceiling_s(failures - 1) + BACKOFF.delay_s(failures - 1)) / 2
        if failures >= FAILURES_PER_ANSWER or wait_s >= self.seconds_left:
            raise AssignmentFailed(FailureCode.PROVIDER_UNAVAILABLE, interruption.message)
        self._progress.at(f"{interruption.message}; asking again"[:200])
        self._clock.sleep(wait_s)

    def _stream(self, messages: list[dict[str, Any]], reply: Reply) -> None:
        try:
            with self._client.messages.with_streaming_response.create(
                **self._request(messages)
            ) as response:
                self._read(response.iter_lines(), reply)
        except anthropic.APIStatusError as error:
            raise translate_status(error) from error
        except anthropic.APIConnectionError as error:
            raise Interrupted(f"no connection to the model: {error.message}") from error
        except httpx2.HTTPError as error:
            message = f"the connection to the model broke off: {type(error).__name__}"
            raise Interrupted(message) from error

    def _request(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "model": self._order.model,
            "max_tokens": self._order.max_tokens,
            # Tools come before the system prompt, so this one mark caches both.
            "system": [{"type": "text", "text": self._system, "cache_control": CACHED}],
            "tools": TOOLS,
            "messages": with_cache_marks(messages),
            "stream": True,
        }

    def _read(self, lines: Iterable[str], reply: Reply) -> None:
        heard_at_s = self._clock.now()
        for event in events(lines):
            now_s = self._clock.now()
            if now_s > self._ends_at_s:
                raise OutOfTime
            if event["type"] == "ping":
                if now_s - heard_at_s > STALL_LIMIT_S:
                    raise Interrupted(f"the model said nothing for {STALL_LIMIT_S:g} s")
                continue
            heard_at_s = now_s
            if event["type"] == "error":
                raise translate_event(event)
            reply.feed(event)
            self._follow(event)
            if event["type"] == "message_stop":
                return
        raise Interrupted("the model's answer broke off")

    def _follow(self, event: dict[str, Any]) -> None:
        if event["type"] == "content_block_start":
            self._progress.tool_begins(str(event["content_block"].get("name", "")))
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            piece = delta.get("partial_json") or delta.get("text") or delta.get("thinking") or ""
            if piece:
                self._progress.stream(piece)


def events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The objects of a stream of server-sent events; each names its type in its data."""
    for line in lines:
        if line.startswith("data:"):
            yield json.loads(line[5:])


def with_cache_marks(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A copy in which the last two messages of the user end in a cache mark.

    The newest is written for the next request; the one before is what this request finds.
    """
    marked = list(messages)
    own = [at for at, message in enumerate(messages) if message["role"] == "user"]
    for at in own[-2:]:
        *before, last = marked[at]["content"]
        content = [*before, {**last, "cache_control": CACHED}]
        marked[at] = {**marked[at], "content": content}
    return marked


def translate_status(error: anthropic.APIStatusError) -> AssignmentFailed | Interrupted:
    """What an answer other than 200 comes to."""
    said = str(error.api_message or error.type or f"status {error.status_code}")[:500]
    if _code_of(error.body) == FailureCode.BUDGET_EXHAUSTED:
        return AssignmentFailed(FailureCode.BUDGET_EXHAUSTED, said)
    found = _translate(error.type, error.status_code, said, _retry_after_s(error.response.headers))
    if isinstance(found, Interrupted) and error.response.headers.get("x-should-retry") == "false":
        found.counts = FAILURES_WHEN_RETRIED
    return found


def translate_event(event: dict[str, Any]) -> AssignmentFailed | Interrupted:
    """What an error in the middle of a stream comes to."""
    error = event.get("error") or {}
    return _translate(error.get("type"), 200, str(error.get("message", ""))[:500], None)


def _translate(
    kind: str | None, status: int, said: str, retry_after_s: float | None
) -> AssignmentFailed | Interrupted:
    if kind in AUTH_ERRORS or status in (401, 402, 403):
        return AssignmentFailed(FailureCode.PROVIDER_AUTH, f"the model refused our key: {said}")
    if kind in PASSING_ERRORS or status in (408, 409, 429) or status >= 500:
        return Interrupted(f"the model is busy: {said}", retry_after_s=retry_after_s)
    return AssignmentFailed(FailureCode.GENERATION_FAILED, f"the model refused the request: {said}")


def _code_of(body: object) -> object:
    """Home's own code, in an error that home made."""
    error = body.get("error") if isinstance(body, dict) else None
    return error.get("code") if isinstance(error, dict) else None


def _retry_after_s(headers: httpx2.Headers) -> float | None:
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None
