"""What one session and one user may hold of the slots at the providers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.sessions.session import Session
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics
from orchestrator.entrypoints.api.gateway.shares import Shares, SlotLimits
from tests.fakes import samples


class Meter:
    """Shares, and the time that calls take."""

    def __init__(
        self, session_s: float = 600, user_s: float = 1200, count_wait_s: float = 60
    ) -> None:
        self.now_s = 0.0
        self.metrics = GatewayMetrics()
        limits = SlotLimits(session_s=session_s, user_s=user_s)
        self.shares = Shares(limits, self.metrics, lambda: self.now_s, count_wait_s)

    def hold(self, session: Session, seconds: float) -> None:
        with self.shares.slot(session):
            self.now_s += seconds

    def wait_of(self, session: Session) -> float:
        """After how long this session may make its next call; 0: now."""
        try:
            with self.shares.slot(session):
                return 0.0
        except errors.LimitReached as error:
            return error.retry_after_s


def session_of(user_id: ids.UserId | None = None) -> Session:
    return samples.session(user_id=user_id or ids.new_user_id())


def test_a_session_that_held_a_slot_for_too_long_waits_and_nobody_else_does() -> None:
    meter, session = Meter(), session_of()
    meter.hold(session, 700)
    wait_s = meter.wait_of(session)

    assert wait_s > 0
    assert meter.wait_of(session_of()) == 0
    meter.now_s += wait_s
    assert meter.wait_of(session) == 0


def test_sessions_of_one_user_share_the_time_of_their_user() -> None:
    meter, user_id = Meter(), ids.new_user_id()
    for _ in range(3):
        meter.hold(session_of(user_id), 590)

    with pytest.raises(errors.LimitReached, match=r"this user .* 1200 s .*SPAWN_PROVIDER_USER_S"):
        meter.hold(session_of(user_id), 1)
    assert (
        meter.metrics.registry.get_sample_value("spawn_llm_slot_refusals_total", {"limit": "user"})
        == 1
    )


def test_a_short_call_gives_back_what_was_set_aside_for_it() -> None:
    meter, session = Meter(session_s=60), session_of()
    for _ in range(50):
        meter.hold(session, 1)
        meter.now_s += 60


def test_a_call_that_is_refused_for_its_user_costs_its_session_nothing() -> None:
    meter, user_id = Meter(session_s=120, user_s=60), ids.new_user_id()
    session = session_of(user_id)
    with meter.shares.slot(session_of(user_id)):
        for _ in range(5):
            assert meter.wait_of(session) > 0
    assert meter.wait_of(replace(session, user_id=ids.new_user_id())) == 0


def test_a_call_that_held_its_slot_beyond_the_limit_is_paid_off_later() -> None:
    meter, session = Meter(), session_of()
    meter.hold(session, 1800)

    assert meter.wait_of(session) > 3600


def test_a_session_makes_few_calls_at_a_time() -> None:
    meter, session = Meter(), session_of()
    with contextlib.ExitStack() as held:
        for _ in range(4):
            held.enter_context(meter.shares.call(session))
        with pytest.raises(errors.LimitReached) as caught, meter.shares.call(session):
            pass
        assert caught.value.code == "too_many_calls"
        with meter.shares.call(session_of()):
            pass
    with meter.shares.call(session):
        pass


def test_token_counts_of_a_session_take_turns_whatever_calls_it_makes() -> None:
    async def main() -> None:
        meter, session, order = Meter(), session_of(), list[int]()

        async def count(number: int) -> None:
            async with meter.shares.count(session):
                await asyncio.sleep(0)
                order.append(number)

        with contextlib.ExitStack() as held:
            for _ in range(4):
                held.enter_context(meter.shares.call(session))
            await asyncio.gather(*map(count, range(16)))
        assert order == [*range(16)]

    asyncio.run(main())


def test_only_so_many_token_counts_wait_and_none_of_others_waits_for_them() -> None:
    async def main() -> None:
        meter, session = Meter(), session_of()
        async with contextlib.AsyncExitStack() as held:
            await held.enter_async_context(meter.shares.count(session))
            waiting = [asyncio.create_task(count_once(meter, session)) for _ in range(15)]
            await asyncio.sleep(0)
            with pytest.raises(errors.LimitReached) as caught:
                await count_once(meter, session)
            assert caught.value.code == "too_many_token_counts"
            await count_once(meter, session_of())
            assert not any(task.done() for task in waiting)
        await asyncio.gather(*waiting)
        await count_once(meter, session)

    asyncio.run(main())


def test_a_token_count_that_waits_for_too_long_is_told_so_and_is_gone() -> None:
    async def main() -> None:
        meter, session = Meter(count_wait_s=0.01), session_of()
        async with meter.shares.count(session):
            for _ in range(20):  # more than may wait at a time
                with pytest.raises(errors.LimitReached, match=r"have taken 0\.01 s"):
                    await count_once(meter, session)
        await count_once(meter, session)

    asyncio.run(main())


async def count_once(meter: Meter, session: Session) -> None:
    async with meter.shares.count(session):
        pass
