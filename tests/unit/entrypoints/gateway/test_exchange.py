"""One response, written by one task and read by many clients."""

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
    """An ASGI client that records what it is sent, and disconnects when told."""

    def __init__(self) -> None:
        self.disconnected = asyncio.Event()
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        await self.disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def is_complete(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False


class Readers:
    """Clients that all make the same request."""

    def __init__(self, write: Write) -> None:
        self.in_flight = InFlight()
        self._write = write

    def add(self) -> tuple[Client, asyncio.Task[None]]:
        client = Client()
        relay = Relay(lambda: self.in_flight.join("key", self._write))
        return client, asyncio.create_task(relay({}, client.receive, client.send))


def test_a_late_reader_gets_the_answer_from_its_start() -> None:
    async def scenario() -> None:
        may_continue = asyncio.Event()

        async def write(exchange: Exchange) -> None:
            exchange.begin(HEAD)
            exchange.write(b"one ")
            await may_continue.wait()
            exchange.write(b"two")
            exchange.complete()

        readers = Readers(write)
        first, reading = readers.add()
        while not first.sent:
            await asyncio.sleep(0)
        late, reading_late = readers.add()
        may_continue.set()
        await asyncio.gather(reading, reading_late)
        assert (first.body, late.body) == (b"one two", b"one two")
        assert first.is_complete
        assert late.sent[0]["status"] == 200

    asyncio.run(scenario())


def test_the_writer_is_cancelled_with_its_last_reader_and_not_before() -> None:
    async def scenario() -> None:
        cancelled = asyncio.Event()
        started = asyncio.Event()

        async def write(_: Exchange) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        readers = Readers(write)
        (first, reading_first), (second, reading_second) = readers.add(), readers.add()
        await started.wait()
        first.disconnected.set()
        await reading_first
        assert not cancelled.is_set()
        second.disconnected.set()
        await reading_second
        await cancelled.wait()
        assert (first.sent, second.sent) == ([], [])

    asyncio.run(scenario())


def test_a_cancelled_exchange_is_not_joined_any_more() -> None:
    async def scenario() -> None:
        starts = 0
        end = asyncio.Event()

        async def write(exchange: Exchange) -> None:
            nonlocal starts
            starts += 1
            try:
                await end.wait()
            except asyncio.CancelledError:
                await end.wait()  # its clean-up takes a while
                raise
            exchange.begin(HEAD)
            exchange.complete()

        readers = Readers(write)
        client, reading = readers.add()
        while not starts:
            await asyncio.sleep(0)
        client.disconnected.set()
        await reading
        second, reading_second = readers.add()
        while starts < 2:
            await asyncio.sleep(0)
        end.set()
        await reading_second
        assert second.is_complete

    asyncio.run(scenario())


def test_an_answer_that_is_cut_is_left_unfinished() -> None:
    async def scenario() -> None:
        async def write(exchange: Exchange) -> None:
            exchange.begin(HEAD)
            exchange.write(b"half")

        client, reading = Readers(write).add()
        await reading
        assert client.body == b"half"
        assert not client.is_complete

    asyncio.run(scenario())


def test_an_error_that_concerns_one_client_is_not_sent_to_the_others_who_then_ask_again() -> None:
    async def scenario() -> None:
        calls = 0
        decided = asyncio.Event()

        async def write(exchange: Exchange) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                await decided.wait()
                exchange.fail(wire.error_response_for(errors.BudgetExhausted("theirs")))
            else:
                exchange.begin(HEAD)
                exchange.write(b"mine")
                exchange.complete()

        readers = Readers(write)
        (refused, reading_first), (served, reading_second) = readers.add(), readers.add()
        while not calls:
            await asyncio.sleep(0)
        decided.set()
        await asyncio.gather(reading_first, reading_second)
        assert (refused.sent[0]["status"], served.sent[0]["status"]) == (402, 200)
        assert served.body == b"mine"

    asyncio.run(scenario())


def test_a_bug_in_the_writer_is_an_error_for_the_reader_and_no_endless_wait() -> None:
    async def scenario() -> None:
        async def write(_: Exchange) -> None:
            raise ValueError("a bug")

        client, reading = Readers(write).add()
        await reading
        assert client.sent[0]["status"] == 500
        assert b"api_error" in client.body
        assert b"a bug" not in client.body

    asyncio.run(scenario())


def test_closing_cancels_the_exchanges_and_waits_for_their_writers() -> None:
    async def scenario() -> None:
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

    asyncio.run(scenario())


@pytest.mark.parametrize("finish", [Exchange.complete, Exchange.cut])
def test_an_exchange_that_is_over_can_not_be_cut(finish: Callable[[Exchange], None]) -> None:
    async def scenario() -> None:
        exchange = Exchange()
        finish(exchange)
        phase = exchange.phase
        exchange.cut()
        assert exchange.phase is phase

    asyncio.run(scenario())
