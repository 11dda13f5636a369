"""One answer, written once and read by many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from orchestrator.domain import errors
from orchestrator.entrypoints.api.gateway import wire
from orchestrator.entrypoints.api.gateway.exchange import Exchange, InFlight, Phase, Relay
from orchestrator.entrypoints.api.gateway.wire import Head

HEAD = Head(status=200, headers={"content-type": "text/plain"})
Write = Callable[[Exchange], Coroutine[Any, Any, None]]


class Client:
    """One ASGI client: keeps what it is sent, and goes away when told."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def whole(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False


class Readers:
    """Clients of one kind of request."""

    def __init__(self, write: Write) -> None:
        self.in_flight = InFlight()
        self._write = write

    def add(self) -> tuple[Client, asyncio.Task[None]]:
        client = Client()
        relay = Relay(lambda: self.in_flight.join("key", self._write))
        return client, asyncio.create_task(relay({}, client.receive, client.send))


def test_who_comes_late_gets_the_answer_from_its_start() -> None:
    async def story() -> None:
        go_on = asyncio.Event()

        async def write(exchange: Exchange) -> None:
            exchange.begin(HEAD)
            exchange.write(b"one ")
            await go_on.wait()
            exchange.write(b"two")
            exchange.end()

        readers = Readers(write)
        first, reading = readers.add()
        while not first.sent:
            await asyncio.sleep(0)
        late, reading_late = readers.add()
        go_on.set()
        await asyncio.gather(reading, reading_late)
        assert (first.body, late.body) == (b"one two", b"one two")
        assert first.whole
        assert late.sent[0]["status"] == 200

    asyncio.run(story())


def test_the_writer_is_cancelled_with_its_last_reader_and_not_before() -> None:
    async def story() -> None:
        cancelled = asyncio.Event()
        begun = asyncio.Event()

        async def write(_: Exchange) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        readers = Readers(write)
        (one, first), (other, second) = readers.add(), readers.add()
        await begun.wait()
        one.gone.set()
        await first
        assert not cancelled.is_set()
        other.gone.set()
        await second
        await cancelled.wait()
        assert (one.sent, other.sent) == ([], [])

    asyncio.run(story())


def test_one_that_was_cancelled_is_not_joined_any_more() -> None:
    async def story() -> None:
        begun = 0
        end = asyncio.Event()

        async def write(exchange: Exchange) -> None:
            nonlocal begun
            begun += 1
            try:
                await end.wait()
            except asyncio.CancelledError:
                await end.wait()  # it takes its time to end
                raise
            exchange.begin(HEAD)
            exchange.end()

        readers = Readers(write)
        client, reading = readers.add()
        while not begun:
            await asyncio.sleep(0)
        client.gone.set()
        await reading
        fresh, reading_fresh = readers.add()
        while begun < 2:
            await asyncio.sleep(0)
        end.set()
        await reading_fresh
        assert fresh.whole

    asyncio.run(story())


def test_an_answer_that_is_cut_is_left_unfinished() -> None:
    async def story() -> None:
        async def write(exchange: Exchange) -> None:
            exchange.begin(HEAD)
            exchange.write(b"half")

        client, reading = Readers(write).add()
        await reading
        assert client.body == b"half"
        assert not client.whole

    asyncio.run(story())


def test_a_refusal_meant_for_one_is_not_passed_to_the_others_who_ask_for_themselves() -> None:
    async def story() -> None:
        asked = 0
        decided = asyncio.Event()

        async def write(exchange: Exchange) -> None:
            nonlocal asked
            asked += 1
            if asked == 1:
                await decided.wait()
                exchange.refuse(wire.refusal_of(errors.BudgetExhausted("theirs")))
            else:
                exchange.begin(HEAD)
                exchange.write(b"mine")
                exchange.end()

        readers = Readers(write)
        (poor, first), (rich, second) = readers.add(), readers.add()
        while not asked:
            await asyncio.sleep(0)
        decided.set()
        await asyncio.gather(first, second)
        assert (poor.sent[0]["status"], rich.sent[0]["status"]) == (402, 200)
        assert rich.body == b"mine"

    asyncio.run(story())


def test_a_bug_in_the_writer_is_an_error_for_the_reader_and_no_endless_wait() -> None:
    async def story() -> None:
        async def write(_: Exchange) -> None:
            raise ValueError("a bug")

        client, reading = Readers(write).add()
        await reading
        assert client.sent[0]["status"] == 500
        assert b"api_error" in client.body
        assert b"a bug" not in client.body

    asyncio.run(story())


def test_closing_cancels_what_is_under_way_and_waits_for_it() -> None:
    async def story() -> None:
        exchanges: list[Exchange] = []

        async def write(exchange: Exchange) -> None:
            exchanges.append(exchange)
            await asyncio.Event().wait()

        readers = Readers(write)
        _, reading = readers.add()
        while not exchanges:
            await asyncio.sleep(0)
        await readers.in_flight.close()
        await reading
        assert exchanges[0].phase is Phase.CUT

    asyncio.run(story())


@pytest.mark.parametrize("finish", [Exchange.end, Exchange.cut])
def test_what_is_over_stays_as_it_is(finish: Callable[[Exchange], None]) -> None:
    async def story() -> None:
        exchange = Exchange()
        finish(exchange)
        phase = exchange.phase
        exchange.cut()
        assert exchange.phase is phase

    asyncio.run(story())
