"""The events of one host are taken in turns, so that the loop of all hosts stays free.

The loop's time is the tests' own: see waitless.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

import pytest

from orchestrator.adapters.docker import watch
from orchestrator.domain import errors
from tests.fakes.waitless import LoopWithoutWaits


def read(*chunks: bytes) -> tuple[list[Sequence[bytes]], float]:
    """The turns of a stream, and the seconds for which they made the reader pause."""

    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def collect() -> list[Sequence[bytes]]:
        return [lines async for lines in watch.turns(stream())]

    loop = LoopWithoutWaits()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(collect()), loop.now


def test_what_comes_together_is_one_turn() -> None:
    assert read(b"a\nb\n\n  \nc", b"d", b"e\nf\n")[0] == [[b"a", b"b"], [b"cde", b"f"]]


@pytest.mark.parametrize("line", [b"{}\n", b"x" * 1000 + b"\n", b"\n"])
def test_a_second_of_the_loop_takes_a_bounded_number_of_bytes(line: bytes) -> None:
    chunk = line * (64 * 1024 // len(line))
    _, paused_s = read(*[chunk] * 100)
    assert len(chunk) * 100 / paused_s == pytest.approx(watch.EVENTS_BYTES_PER_S, rel=0.01)


def test_a_second_of_the_loop_takes_a_bounded_number_of_turns() -> None:
    _, paused_s = read(*[b"x"] * 1000)
    assert paused_s == pytest.approx(1000 * 1024 / watch.EVENTS_BYTES_PER_S, rel=0.01)


def test_an_event_without_end_is_refused() -> None:
    with pytest.raises(errors.EngineUnavailable, match="an event has no end"):
        read(*[b"x" * 64 * 1024] * 5)


def test_others_run_while_a_long_list_is_read() -> None:
    foreign = {"Id": "c", "Labels": {}, "State": "running"}
    body = json.dumps([foreign] * 5000).encode()

    async def turns_of_others() -> int:
        reading = asyncio.create_task(watch.parse_list(body))
        turns = 0
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        assert await reading == {}
        return turns

    assert asyncio.run(turns_of_others()) >= 100
