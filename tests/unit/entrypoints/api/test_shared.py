"""One answer for all who ask at about the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from orchestrator.entrypoints.api.bounds.shared import Shared


class Source:
    """Makes an answer once it may; its answers are 1, 2, 3 and so on."""

    def __init__(self) -> None:
        self.made = 0
        self.now_s = 100.0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.fails = False
        self.shared = Shared(self._make, 1.0, lambda: self.now_s)

    async def _make(self) -> int:
        self.made += 1
        await self.may_answer.wait()
        if self.fails:
            raise OSError("it fails")
        return self.made


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_all_who_ask_while_it_is_made_get_the_same() -> None:
    async def test() -> None:
        source = Source()
        source.may_answer.clear()
        askers = [asyncio.create_task(source.shared.get()) for _ in range(100)]
        await asyncio.sleep(0)
        source.may_answer.set()
        assert set(await asyncio.gather(*askers)) == {1}

    run(test())


def test_it_is_kept_for_a_while() -> None:
    async def test() -> None:
        source = Source()
        assert await source.shared.get() == 1
        source.now_s += 0.9
        assert await source.shared.get() == 1
        source.now_s += 0.1
        assert await source.shared.get() == 2

    run(test())


def test_an_error_reaches_those_who_wait_and_is_not_kept() -> None:
    async def test() -> None:
        source = Source()
        source.fails = True
        askers = [asyncio.create_task(source.shared.get()) for _ in range(2)]
        outcomes = await asyncio.gather(*askers, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [OSError, OSError]
        with pytest.raises(OSError, match="it fails"):
            await source.shared.get()
        source.fails = False
        assert await source.shared.get() == 3

    run(test())


def test_whoever_goes_away_does_not_end_it_for_the_others() -> None:
    async def test() -> None:
        source = Source()
        source.may_answer.clear()
        first, second = (asyncio.create_task(source.shared.get()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        source.may_answer.set()
        assert await second == 1

    run(test())
