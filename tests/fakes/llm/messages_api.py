"""A scripted Messages API for tests: the server of `make demo`, and every way in which it can fail.

It plays the turns of `messages_scripts`, in order or for prompts with a phrase. It records the
requests, and counts the tokens of its answers. `python -m tests.fakes.llm.messages_api --port 0`
serves only the canned answers.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.responses import Response

from orchestrator.entrypoints.demo import wire
from orchestrator.entrypoints.demo.requests import MODEL, ApiError
from orchestrator.entrypoints.demo.server import MessagesServer, Paced, main
from orchestrator.entrypoints.demo.wire import Json, Reply
from tests.fakes.llm import messages_scripts as scripts

__all__ = ["MODEL", "MessagesApi", "RecordedRequest", "Totals"]

PING_S = 0.01


@dataclass(frozen=True, kw_only=True)
class RecordedRequest:
    """One POST as it arrived, even if it was refused."""

    path: str
    headers: Mapping[str, str]  # names in lower case
    body: Any  # decoded; None if it was not JSON


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Number and tokens of the answers that were messages, cut or not; counted like `usage`."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0


class MessagesApi(MessagesServer):
    """The server, on a free port of 127.0.0.1: `with MessagesApi() as api: ... api.url`."""

    def __init__(self, *, key: str | None = None, port: int = 0, drip_s: float = 0.0) -> None:
        """Listen. Accepts only `key`, or any key if None. `drip_s` slows canned answers down."""
        super().__init__(key=key, port=port, drip_s=drip_s)
        self._changed = threading.Condition()
        self._turns: deque[scripts.Turn] = deque()
        self._scenarios: dict[str, deque[scripts.Turn]] = {}
        self._always: scripts.Turn | None = None
        self._requests: list[RecordedRequest] = []
        self._totals = Totals()

    def play(self, *turns: scripts.Turn) -> None:
        """Answer the next accepted messages with these turns, one each, in order."""
        with self._changed:
            self._turns.extend(turns)

    def play_for(self, phrase: str, *turns: scripts.Turn) -> None:
        """Answer conversations whose first message contains `phrase` with these turns, in order."""
        with self._changed:
            self._scenarios.setdefault(phrase, deque()).extend(turns)

    def always(self, turn: scripts.Turn | None) -> None:
        """Answer with this turn when none is left to play. None: with the canned answers."""
        with self._changed:
            self._always = turn

    def reset(self) -> None:
        """Forget all turns and requests, so that several tests can share a server."""
        with self._changed:
            self._turns.clear()
            self._scenarios.clear()
            self._always = None
            self._requests.clear()
            self._totals = Totals()

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """Every POST so far, oldest first."""
        with self._changed:
            return tuple(self._requests)

    @property
    def totals(self) -> Totals:
        """Totals of the answers so far."""
        with self._changed:
            return self._totals

    def wait_for_requests(
        self, count: int, *, within_s: float = 10.0
    ) -> tuple[RecordedRequest, ...]:
        """Wait until `count` requests have arrived. Raises TimeoutError if they don't."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= count, within_s):
                raise TimeoutError(f"{len(self._requests)} of {count} requests within {within_s} s")
            return tuple(self._requests)

    def received(self, path: str, headers: Mapping[str, str], body: Any) -> None:
        with self._changed:
            self._requests.append(RecordedRequest(path=path, headers=headers, body=body))
            self._changed.notify_all()

    def answer(self, body: Json) -> Response:
        turn = self._next_turn(body)
        if turn is None:
            return super().answer(body)
        turn, delivery = _unwrap(turn)
        error = turn if isinstance(turn, scripts.ErrorTurn) else None
        if error is not None:
            if body.get("stream") is not True or error.after_events is None:
                raise ApiError(
                    error.status, error.type, error.message, error.retry_after, code=error.code
                )
            turn = scripts.TextTurn(text="Something is about to go wrong. " * 20)
        reply = scripts.reply_of(turn, max_tokens=body["max_tokens"])  # type: ignore[arg-type]
        if body.get("stream") is not True:
            return self._whole(body, reply, delivery)
        return self._streamed(body, reply, delivery, error)

    def _whole(self, body: Json, reply: Reply, delivery: _Delivery) -> Response:
        payload = wire.to_json(wire.message(body, reply, self.spend(body, reply)))
        sent_bytes = len(payload) if delivery.is_whole else len(payload) // 2
        headers = wire.headers(wire.new_id("req"), "application/json")
        headers["content-length"] = str(len(payload))
        return Paced(
            [payload[:sent_bytes]], headers, delay_s=delivery.delay_s, whole=delivery.is_whole
        )

    def _streamed(
        self, body: Json, reply: Reply, delivery: _Delivery, error: scripts.ErrorTurn | None
    ) -> Response:
        request_id, usage = wire.new_id("req"), self.spend(body, reply)
        frames = [wire.frame(event) for event in wire.events(body, reply, usage)]
        frames = frames[: delivery.cut_after]
        if error is not None:
            event = wire.error(error.type, error.message, request_id, code=error.code)
            frames[error.after_events :] = [wire.frame(event)]
        headers = wire.headers(request_id, "text/event-stream; charset=utf-8")
        return _Stalling(frames, headers, delivery)

    def spend(self, body: Json, reply: Reply) -> Json:
        usage = super().spend(body, reply)
        with self._changed:
            totals = self._totals
            tokens = {
                name: count + usage[name] for name, count in vars(totals).items() if name in usage
            }
            self._totals = Totals(calls=totals.calls + 1, **tokens)
        return usage

    def _next_turn(self, body: Json) -> scripts.Turn | None:
        first_message = wire.to_json(body["messages"][0]).decode()
        with self._changed:
            for phrase, turns in self._scenarios.items():
                if phrase in first_message and turns:
                    return turns.popleft()
            return self._turns.popleft() if self._turns else self._always


@dataclass(frozen=True, kw_only=True)
class _Delivery:
    """How an answer is sent."""

    delay_s: float = 0.0  # before each event
    cut_after: int | None = None  # the connection breaks after so many events; None: never
    pings: int = 0  # sent after the events

    @property
    def is_whole(self) -> bool:
        return self.cut_after is None


def _unwrap(turn: scripts.Turn) -> tuple[scripts.Turn, _Delivery]:
    """Part a turn into its content and the way in which it is sent."""
    delivery = _Delivery()
    while isinstance(turn, scripts.Cut | scripts.Drip | scripts.Stall):
        if isinstance(turn, scripts.Drip):
            delivery = replace(delivery, delay_s=turn.delay_s)
        else:
            pings = turn.pings if isinstance(turn, scripts.Stall) else 0
            delivery = replace(delivery, cut_after=turn.after_events, pings=pings)
        turn = turn.turn
    return turn, delivery


class _Stalling(Paced):
    """Sends pings after the chunks, before the end."""

    def __init__(self, chunks: list[bytes], headers: Json, delivery: _Delivery) -> None:
        self._pings = delivery.pings
        super().__init__(chunks, headers, delay_s=delivery.delay_s, whole=delivery.is_whole)

    async def _paced(self, chunks: list[bytes], delay_s: float) -> AsyncIterator[bytes]:
        async for chunk in super()._paced(chunks, delay_s):
            yield chunk
        for _ in range(self._pings):
            await asyncio.sleep(PING_S)
            yield wire.frame({"type": "ping"})


if __name__ == "__main__":
    main()
