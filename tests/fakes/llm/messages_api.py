"""A scripted Messages API for tests: the stand-in of `make demo`, and every way it can fail.

It plays the turns of `messages_scripts`, in order or by what the prompt says, keeps what it was
asked, and counts what it answered. `python -m tests.fakes.llm.messages_api --port 0` serves the
canned answers alone.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from orchestrator.entrypoints.demo import wire
from orchestrator.entrypoints.demo.requests import MODEL, ApiError
from orchestrator.entrypoints.demo.server import MessagesServer, Paced, main
from orchestrator.entrypoints.demo.wire import Json, Reply
from tests.fakes.llm import messages_scripts as scripts

__all__ = ["MODEL", "MessagesApi", "Recorded", "Totals"]

PING_S = 0.01


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One POST as it came in, even when it was turned down."""

    path: str
    headers: Mapping[str, str]  # names in lower case
    body: Any  # decoded; None when it was not JSON


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What was answered with a message, broken off or not; as `usage` counts it."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0


class MessagesApi(MessagesServer):
    """The server, on a free port of 127.0.0.1: `with MessagesApi() as api: ... api.url`."""

    def __init__(self, *, key: str | None = None, port: int = 0, drip_s: float = 0.0) -> None:
        """Listen. Only `key` is accepted, or any key; `drip_s` paces the canned answers."""
        super().__init__(key=key, port=port, drip_s=drip_s)
        self._changed = threading.Condition()
        self._turns: deque[scripts.Turn] = deque()
        self._scenarios: dict[str, deque[scripts.Turn]] = {}
        self._always: scripts.Turn | None = None
        self._requests: list[Recorded] = []
        self._totals = Totals()

    def play(self, *turns: scripts.Turn) -> None:
        """Answer the next accepted messages with these turns, one each, in order."""
        with self._changed:
            self._turns.extend(turns)

    def play_for(self, phrase: str, *turns: scripts.Turn) -> None:
        """The same for conversations whose first message holds `phrase`, whatever else goes on."""
        with self._changed:
            self._scenarios.setdefault(phrase, deque()).extend(turns)

    def always(self, turn: scripts.Turn | None) -> None:
        """Answer with this turn when nothing is left to play; None: with the canned answers."""
        with self._changed:
            self._always = turn

    def reset(self) -> None:
        """Forget turns and requests: a server can be shared by tests."""
        with self._changed:
            self._turns.clear()
            self._scenarios.clear()
            self._always = None
            self._requests.clear()
            self._totals = Totals()

    @property
    def requests(self) -> tuple[Recorded, ...]:
        """Every POST so far, oldest first."""
        with self._changed:
            return tuple(self._requests)

    @property
    def totals(self) -> Totals:
        """What was answered so far."""
        with self._changed:
            return self._totals

    def wait_for_requests(self, count: int, *, within_s: float = 10.0) -> tuple[Recorded, ...]:
        """Wait until `count` requests have come in; TimeoutError otherwise."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= count, within_s):
                raise TimeoutError(f"{len(self._requests)} of {count} requests within {within_s} s")
            return tuple(self._requests)

    def received(self, path: str, headers: Mapping[str, str], body: Any) -> None:
        with self._changed:
            self._requests.append(Recorded(path=path, headers=headers, body=body))
            self._changed.notify_all()

    def answer(self, body: Json) -> Response:
        turn = self._next_turn(body)
        if turn is None:
            return super().answer(body)
        delay_s, cut_after, pings = 0.0, None, 0
        while isinstance(turn, scripts.Cut | scripts.Drip | scripts.Stall):
            if isinstance(turn, scripts.Drip):
                delay_s = turn.delay_s
            else:
                cut_after = turn.after_events
                pings = turn.pings if isinstance(turn, scripts.Stall) else 0
            turn = turn.turn
        error = turn if isinstance(turn, scripts.ErrorTurn) else None
        if error is not None:
            if body.get("stream") is not True or error.after_events is None:
                raise ApiError(
                    error.status, error.type, error.message, error.retry_after, code=error.code
                )
            turn = scripts.TextTurn(text="Something is about to go wrong. " * 20)
        reply = scripts.reply_of(turn, max_tokens=body["max_tokens"])  # type: ignore[arg-type]
        if body.get("stream") is not True:
            return self._whole(body, reply, delay_s, cut_after)
        return self._streamed(body, reply, delay_s, cut_after, pings, error)

    def _whole(self, body: Json, reply: Reply, delay_s: float, cut_after: int | None) -> Response:
        payload = wire.dumped(wire.message(body, reply, self.spend(body, reply)))
        kept = len(payload) if cut_after is None else len(payload) // 2
        headers = wire.headers(wire.new_id("req"), "application/json")
        headers["content-length"] = str(len(payload))
        return Paced([payload[:kept]], headers, delay_s=delay_s, whole=cut_after is None)

    def _streamed(
        self,
        body: Json,
        reply: Reply,
        delay_s: float,
        cut_after: int | None,
        pings: int,
        error: scripts.ErrorTurn | None,
    ) -> Response:
        request_id, usage = wire.new_id("req"), self.spend(body, reply)
        frames = [wire.frame(event) for event in wire.events(body, reply, usage)][:cut_after]
        if error is not None:
            said = wire.error(error.type, error.message, request_id)
            frames[error.after_events :] = [wire.frame(said)]
        headers = wire.headers(request_id, "text/event-stream; charset=utf-8")
        return _Stalling(frames, headers, delay_s=delay_s, whole=cut_after is None, pings=pings)

    def spend(self, body: Json, reply: Reply) -> Json:
        usage = super().spend(body, reply)
        with self._changed:
            before = self._totals
            counted = {
                name: count + usage[name] for name, count in vars(before).items() if name in usage
            }
            self._totals = Totals(calls=before.calls + 1, **counted)
        return usage

    def _next_turn(self, body: Json) -> scripts.Turn | None:
        first = wire.dumped(body["messages"][0]).decode()
        with self._changed:
            for phrase, turns in self._scenarios.items():
                if phrase in first and turns:
                    return turns.popleft()
            return self._turns.popleft() if self._turns else self._always


class _Stalling(Paced):
    """Pings after the chunks, before the end."""

    def __init__(
        self, chunks: list[bytes], headers: Json, *, delay_s: float, whole: bool, pings: int
    ) -> None:
        self._pings = pings
        super().__init__(chunks, headers, delay_s=delay_s, whole=whole)

    async def _paced(self, chunks: list[bytes], delay_s: float) -> AsyncIterator[bytes]:
        async for chunk in super()._paced(chunks, delay_s):
            yield chunk
        for _ in range(self._pings):
            await asyncio.sleep(PING_S)
            yield wire.frame({"type": "ping"})


if __name__ == "__main__":
    main()
