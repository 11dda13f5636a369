"""What one session, and one user, may hold of the slots at the providers. `call` asks it.

Turns alone don't bound it: who has a slot may keep it for minutes. So a session makes few calls at
a time, and the seconds that calls hold a slot are taken from a budget that fills up again. The
limiter adds that a user never holds the last slot.

A token count is short, and clients ask for a dozen at once. They take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.domain import errors
from orchestrator.domain.sessions.session import Session
from orchestrator.entrypoints.api.bounds.holds import Holds
from orchestrator.entrypoints.api.bounds.turns import Turns
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics
from orchestrator.services.rates import Rate, Rates

_CALLS_MAX = 4  # of a session at a time; its generator makes one
_COUNTS_MAX = 16  # of a session that have their turn or wait for it: all that a sandbox may ask
_COUNT_WAIT_S = 60.0  # the longest that one waits
_RESERVED_S = 60.0  # of a call that begins; corrected when it has ended
_PERIOD_S = 3600.0  # in which a used-up budget is full again


@dataclass(frozen=True, kw_only=True)
class SlotLimits:
    """Seconds of slots within an hour."""

    session_s: float
    user_s: float


class Shares:
    """Counts the calls that each session makes, and the time that they hold a slot.

    Use it from one event loop only. It is in memory: a new process begins with full budgets.
    """

    def __init__(
        self,
        limits: SlotLimits,
        metrics: GatewayMetrics,
        now_s: Callable[[], float],
        count_wait_s: float = _COUNT_WAIT_S,
    ) -> None:
        """`count_wait_s`: the longest that a token count waits for those before it."""
        self._count_wait_s = count_wait_s
        self._metrics = metrics
        self._now_s = now_s
        self._calls = Holds(
            "calls to the model",
            code="too_many_calls",
            refusals=metrics.slot_refusals.labels("calls"),
        )
        self._counts = Turns(
            Holds(
                "token counts",
                code="too_many_token_counts",
                refusals=metrics.slot_refusals.labels("counts"),
            )
        )
        self._budgets = {
            name: (limit_s, Rates(Rate(per_s=limit_s / _PERIOD_S, burst=limit_s)))
            for name, limit_s in (("session", limits.session_s), ("user", limits.user_s))
        }

    def call(self, session: Session) -> contextlib.AbstractContextManager[None]:
        """Wrap a whole call, its wait for a slot included. Raises errors.LimitReached
        (too_many_calls)."""
        return self._calls.hold(session.id, _CALLS_MAX)

    def check_slot(self, session: Session) -> None:
        """Raise what `slot` would raise now: before anything is written about a call."""
        for name, key in _keys(session):
            _, rates = self._budgets[name]
            self._check_wait(name, rates.wait(key, self._now_s(), _RESERVED_S))

    @contextlib.asynccontextmanager
    async def count(self, session: Session) -> AsyncIterator[None]:
        """Wrap a whole token count: wait for the session's turn, and have it. Raises
        errors.LimitReached (too_many_token_counts) if too many wait, or this one for too long."""
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._count_wait_s):
                    await held.enter_async_context(self._counts.turn(session.id, _COUNTS_MAX))
            except TimeoutError as error:
                raise errors.LimitReached(
                    f"the token counts before this one have taken {self._count_wait_s:g} s;"
                    " try again later",
                    code="too_many_token_counts",
                ) from error
            yield

    @contextlib.contextmanager
    def slot(self, session: Session) -> Iterator[None]:
        """Wrap the time in which a call holds a slot. Raises errors.LimitReached
        (slot_time_exhausted) if the session, or its user, has used up its seconds."""
        taken: list[tuple[Rates, str]] = []
        started_s = self._now_s()
        try:
            for name, key in _keys(session):
                taken.append((self._take(name, key, started_s), key))
        except errors.LimitReached:
            for rates, key in taken:
                rates.charge(key, started_s, -_RESERVED_S)
            raise
        try:
            yield
        finally:
            ended_s = self._now_s()
            for rates, key in taken:
                rates.charge(key, ended_s, ended_s - started_s - _RESERVED_S)

    def _take(self, name: str, key: str, now_s: float) -> Rates:
        _, rates = self._budgets[name]
        self._check_wait(name, rates.take(key, now_s, _RESERVED_S))
        return rates

    def _check_wait(self, name: str, wait_s: float) -> None:
        if not wait_s:
            return
        limit_s, _ = self._budgets[name]
        self._metrics.slot_refusals.labels(name).inc()
        raise errors.LimitReached(
            f"this {name} has held calls to the model for so long that its time is used up:"
            f" {limit_s:g} s within an hour (SPAWN_PROVIDER_{name.upper()}_S); try again in"
            f" {wait_s:.0f} s",
            code="slot_time_exhausted",
            retry_after_s=wait_s,
            limit=limit_s,
        )


def _keys(session: Session) -> Sequence[tuple[str, str]]:
    return ("session", session.id), ("user", session.user_id)
