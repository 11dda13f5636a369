"""Reserves what calls may cost, and writes down what they did cost. `call` uses it.

Both are transactions, and a call that no provider takes costs nothing: an app could have the
database write as fast as it asks. So the reservation of such a call is kept for a while for the
session's next one, and given back when none comes. The call itself is only counted in the metrics.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.domain import errors
from orchestrator.domain.llm.budgets import Scope
from orchestrator.domain.llm.requests import ModelRequest
from orchestrator.domain.llm.usage import Call, Reservation
from orchestrator.domain.sessions.session import Session
from orchestrator.entrypoints.api.context import Context
from orchestrator.services.llm import spending
from orchestrator.services.llm.spending import CallResult
from orchestrator.slim import structlog

_RETRY_MAX_S = 30  # the longest pause between two attempts to write an account
_CLOSE_TIMEOUT_S = 5.0
_WAIT_S = 1.0  # the end of an answer waits at most this long for its account
KEEP_S = 2.0  # so long a reservation waits for the next call; budgets have less room meanwhile

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A reservation that no call uses at the moment."""

    reservation: Reservation
    release: asyncio.TimerHandle


class Accounts:
    """The reservations and the accounts of this process's calls. Use it from one event loop."""

    def __init__(self, context: Context, holder: str, keep_s: float = KEEP_S) -> None:
        """`holder` names this process in the reservations that it makes."""
        self._context = context
        self._holder = holder
        self._keep_s = keep_s
        self._kept: dict[str, _Kept] = {}  # by the call's id
        self._tasks: set[asyncio.Task[None]] = set()

    async def reserve(
        self, session: Session, request: ModelRequest, models: Sequence[str]
    ) -> Reservation:
        """Reserve the most that a call can cost. If we are cancelled meanwhile, free it again.

        Raises errors.BudgetExhausted and errors.LimitReached (budget_reserved).
        """
        wanted = spending.reservation_for(
            self._context.deps, session, request, models, self._holder
        )
        kept = self._take(wanted)
        if kept is not None:
            return kept
        reserving = asyncio.create_task(self._reserve(wanted), name="reserve")
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            # The store may have the reservation by now, and this process would renew it for ever.
            self._start(self._free(reserving))
            raise

    async def settle(self, reservation: Reservation, result: CallResult) -> None:
        """Write what a call cost, in a task that outlives us: a cancelled one must be paid for
        too. Wait for it, but not for long."""
        call = spending.call_of(self._context.deps, reservation, result)
        if not call.is_recorded:
            self._context.metrics.count_call(call)
            self._keep(reservation)
            return
        task = self._start(self._write(call))
        await asyncio.wait({task}, timeout=_WAIT_S)

    async def close(self) -> None:
        """Give back what is kept, and give the accounts a moment to be written. Those that aren't
        become LOST later."""
        for call_id in list(self._kept):
            self._release(call_id)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_TIMEOUT_S)
        for task in self._tasks:
            task.cancel()

    async def _reserve(self, wanted: Reservation) -> Reservation:
        """Reserve it. If it doesn't fit, give back first what is kept of the same budget."""
        context = self._context
        try:
            try:
                await context.in_thread(spending.reserve, context.deps, wanted)
            except errors.LimitReached as error:
                releasing = [*self._release_all(wanted, str(error.detail["scope"]))]
                if not releasing:
                    raise
                await asyncio.wait(releasing, timeout=_WAIT_S)
                await context.in_thread(spending.reserve, context.deps, wanted)
        except (errors.BudgetExhausted, errors.LimitReached) as error:
            context.metrics.budget_refusals.labels(error.detail["scope"]).inc()
            raise
        return wanted

    async def _free(self, reserving: asyncio.Task[Reservation]) -> None:
        with suppress(errors.SpawnError):
            reservation = await reserving
            call = spending.unused(self._context.deps, reservation)
            self._context.metrics.count_call(call)
            self._keep(reservation)

    async def _write(self, call: Call, *, is_counted: bool = True) -> None:
        """Retry until the store has the account. If we die before, the reservation expires."""
        context = self._context
        for attempt in itertools.count(1):
            try:
                await context.in_thread(spending.settle, context.deps, call)
            except errors.Temporary as error:
                log.warning("account_delayed", call=call.call_id, error=str(error))
                await asyncio.sleep(min(_RETRY_MAX_S, attempt))
            else:
                if is_counted:
                    context.metrics.count_call(call)
                return

    def _take(self, wanted: Reservation) -> Reservation | None:
        """A kept reservation that is enough for this call."""
        for call_id, kept in self._kept.items():
            if _is_enough(kept.reservation, wanted):
                kept.release.cancel()
                del self._kept[call_id]
                return replace(kept.reservation, model=wanted.model)
        return None

    def _keep(self, reservation: Reservation) -> None:
        call_id = reservation.call_id
        timer = asyncio.get_running_loop().call_later(self._keep_s, self._release, call_id)
        self._kept[call_id] = _Kept(reservation=reservation, release=timer)

    def _release_all(self, wanted: Reservation, scope: str) -> Iterator[asyncio.Task[None]]:
        for call_id, kept in list(self._kept.items()):
            is_of_all = scope == Scope.INSTALLATION.name.lower()
            if is_of_all or kept.reservation.user_id == wanted.user_id:
                yield self._release(call_id)

    def _release(self, call_id: str) -> asyncio.Task[None]:
        kept = self._kept.pop(call_id)
        kept.release.cancel()
        call = spending.unused(self._context.deps, kept.reservation)
        return self._start(self._write(call, is_counted=False))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="settle")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _is_enough(kept: Reservation, wanted: Reservation) -> bool:
    """Whether a reservation is of the same accounts, and not too small."""
    return (
        (kept.session_id, kept.user_id, kept.day, kept.change)
        == (wanted.session_id, wanted.user_id, wanted.day, wanted.change)
        and kept.worst.tokens >= wanted.worst.tokens
        and kept.worst.micro_usd >= wanted.worst.micro_usd
    )
