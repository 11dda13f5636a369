"""The limit on concurrent calls, and who gets the next slot."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.domain import errors
from orchestrator.entrypoints.api.gateway.limiter import Limiter
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics


class Crowd:
    """Callers who hold their slot until they are released."""

    def __init__(self, slots: int, wait_s: float = 30) -> None:
        self.metrics = GatewayMetrics()
        self.served: list[str] = []
        self.release = asyncio.Semaphore(0)
        self._limiter = Limiter(slots, wait_s, self.metrics)

    async def arrive(self, name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._call(name))
        await asyncio.sleep(0)
        return task

    async def _call(self, name: str) -> None:
        async with self._limiter.slot(name[0]):
            self.served.append(name)
            await self.release.acquire()


def test_users_get_slots_in_turn() -> None:
    async def scenario() -> list[str]:
        crowd = Crowd(1)
        tasks = [await crowd.arrive(name) for name in ("a1", "a2", "a3", "b1", "c1")]
        for _ in tasks:
            crowd.release.release()
        await asyncio.gather(*tasks)
        return crowd.served

    assert asyncio.run(scenario()) == ["a1", "a2", "b1", "c1", "a3"]


def test_a_caller_that_gives_up_leaves_the_queue_and_no_slot_is_lost() -> None:
    async def scenario() -> list[str]:
        crowd = Crowd(1)
        first, second, third = [await crowd.arrive(name) for name in ("a1", "a2", "b1")]
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        crowd.release.release()
        await first
        crowd.release.release()
        await third
        last = await crowd.arrive("a3")
        crowd.release.release()
        await last
        return crowd.served

    assert asyncio.run(scenario()) == ["a1", "b1", "a3"]


def test_a_caller_cancelled_at_the_moment_of_its_turn_passes_the_slot_on() -> None:
    async def scenario() -> list[str]:
        crowd = Crowd(1)
        first, second, third = [await crowd.arrive(name) for name in ("a1", "b1", "c1")]
        crowd.release.release()
        await first  # its slot was handed to b1, which hasn't run since
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        crowd.release.release()
        await third
        return crowd.served

    served = asyncio.run(scenario())
    assert served[0] == "a1"
    assert served[-1] == "c1"


def test_a_wait_has_an_end() -> None:
    async def scenario() -> float | None:
        crowd = Crowd(1, wait_s=0.01)
        first = await crowd.arrive("a1")
        late = await crowd.arrive("b1")
        with pytest.raises(errors.LimitReached) as caught:
            await late
        assert caught.value.code == "gateway_busy"
        crowd.release.release()
        await first
        return crowd.metrics.registry.get_sample_value("spawn_llm_queue_length")

    assert asyncio.run(scenario()) == 0


def test_a_user_holds_at_most_all_slots_but_one() -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        crowd = Crowd(3)
        tasks = [await crowd.arrive(name) for name in ("a1", "a2", "a3", "a4", "b1")]
        before = list(crowd.served)
        for _ in tasks:
            crowd.release.release()
        await asyncio.gather(*tasks)
        return before, crowd.served

    before, served = asyncio.run(scenario())
    assert before == ["a1", "a2", "b1"]
    assert served == ["a1", "a2", "b1", "a3", "a4"]


def test_a_single_slot_is_for_everybody() -> None:
    async def scenario() -> list[str]:
        crowd = Crowd(1)
        tasks = [await crowd.arrive(name) for name in ("a1", "a2")]
        for _ in tasks:
            crowd.release.release()
        await asyncio.gather(*tasks)
        return crowd.served

    assert asyncio.run(scenario()) == ["a1", "a2"]
