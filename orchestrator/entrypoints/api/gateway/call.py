"""Runs one call of an agent: reserve its cost, wait for a slot, relay the answer, account for it.

`app` starts a call for each exchange. `chain` finds the provider that answers.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.domain import errors
from orchestrator.domain.llm.attempts import Verdict
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.domain.llm.usage import Outcome, Reservation
from orchestrator.domain.sessions.session import Session
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.gateway import pings, wire
from orchestrator.entrypoints.api.gateway.exchange import Exchange
from orchestrator.entrypoints.api.gateway.limiter import Limiter
from orchestrator.entrypoints.api.gateway.provider_chain import (
    FailedAttempt,
    OpenedResponse,
    ProviderChain,
    Trace,
)
from orchestrator.entrypoints.api.gateway.providers.provider import ProviderRequest
from orchestrator.entrypoints.api.gateway.shares import Shares
from orchestrator.entrypoints.api.gateway.wire import ErrorResponse
from orchestrator.services.llm import metering, spending
from orchestrator.services.llm.metering import BodyMeter, Metered, StreamMeter
from orchestrator.services.llm.spending import CallResult
from orchestrator.slim import structlog

_ACCOUNT_RETRY_MAX_S = 30  # the longest pause between two attempts to write an account
_CLOSE_TIMEOUT_S = 5.0
_ACCOUNT_WAIT_S = 1.0  # the end of an answer waits at most this long for its account

log = structlog.get_logger()


@dataclass(kw_only=True)
class CallState:
    """How far a call has come. If it ended now, this would go into its account."""

    meter: StreamMeter | BodyMeter
    trace: Trace = field(default_factory=Trace)
    outcome: Outcome = Outcome.CANCELLED
    has_answer: bool = False  # whether the client was sent the start of an answer
    error: ErrorResponse | None = None  # the client gets it instead of an answer


class CallRunner:
    """Makes calls, and accounts for them."""

    def __init__(
        self,
        context: Context,
        chain: ProviderChain,
        limiter: Limiter,
        shares: Shares,
        holder: str,
        ping_s: float,
    ) -> None:
        """`holder` names this process in the reservations that it makes. `ping_s`: how often the
        client of a stream that hasn't begun is told that it is awaited."""
        self._context = context
        self._shares = shares
        self._chain = chain
        self._limiter = limiter
        self._holder = holder
        self._ping_s = ping_s
        self._account_tasks: set[asyncio.Task[None]] = set()

    async def run(self, session: Session, request: ProviderRequest, exchange: Exchange) -> None:
        """Make one call, and write its answer or its error into `exchange`."""
        state = CallState(meter=_make_meter(request))
        try:
            with self._shares.call(session):
                await self._run_paid(session, request, exchange, state)
        except errors.SpawnError as error:
            state.error = wire.error_response_for(error)
        _finish(exchange, state)

    async def _run_paid(
        self, session: Session, request: ProviderRequest, exchange: Exchange, state: CallState
    ) -> None:
        self._shares.check_slot(session)
        reservation = await self._reserve(session, request)
        started_s = asyncio.get_running_loop().time()
        try:
            await self._answer_in_slot(session, request, exchange, state)
        finally:
            duration_s = asyncio.get_running_loop().time() - started_s
            await self._settle(request, reservation, state, round(1000 * duration_s))

    async def run_token_count(
        self, session: Session, request: ProviderRequest, exchange: Exchange
    ) -> None:
        """Make one call that counts tokens. It is free: no reservation, no account."""
        state = CallState(meter=_make_meter(request))
        try:
            async with self._shares.count(session):
                await self._answer_in_slot(session, request, exchange, state)
        except errors.SpawnError as error:
            state.error = wire.error_response_for(error)
        _finish(exchange, state)

    async def close(self) -> None:
        """Give the accounts a moment to be written. Those that aren't become LOST later."""
        if self._account_tasks:
            await asyncio.wait(self._account_tasks, timeout=_CLOSE_TIMEOUT_S)
        for task in self._account_tasks:
            task.cancel()

    async def _reserve(self, session: Session, request: ProviderRequest) -> Reservation:
        """Reserve the cost of a call. If we are cancelled meanwhile, free the reservation."""
        reserving = asyncio.create_task(self._write_reservation(session, request), name="reserve")
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            # The store may have the reservation by now, and this process would renew it for ever.
            self._start_account_task(self._free_reservation(request, reserving))
            raise

    async def _free_reservation(
        self, request: ProviderRequest, reserving: asyncio.Task[Reservation]
    ) -> None:
        with suppress(errors.SpawnError):
            unused = _summarize(request, CallState(meter=_make_meter(request)), 0)
            await self._write_account(await reserving, unused)

    async def _write_reservation(self, session: Session, request: ProviderRequest) -> Reservation:
        context = self._context
        try:
            return await context.in_thread(
                spending.reserve,
                context.deps,
                session,
                request.parsed,
                self._chain.models_for(request.parsed),
                self._holder,
            )
        except (errors.BudgetExhausted, errors.LimitReached) as error:
            context.metrics.budget_refusals.labels(error.detail["scope"]).inc()
            raise

    async def _answer_in_slot(
        self, session: Session, request: ProviderRequest, exchange: Exchange, state: CallState
    ) -> None:
        try:
            async with self._limiter.slot(session.user_id):
                with self._shares.slot(session):
                    await self._answer(request, exchange, state)
        except errors.LimitReached:
            state.outcome = Outcome.FAILED
            raise

    async def _answer(self, request: ProviderRequest, exchange: Exchange, state: CallState) -> None:
        """Get an answer from a provider, and relay it."""
        with pings.until_answered(exchange, self._ping_s if request.wants_stream else None):
            result = await self._chain.open_response(request, state.trace)
        if isinstance(result, FailedAttempt):
            is_refused = result.verdict is Verdict.REFUSED
            state.outcome = Outcome.REFUSED if is_refused else Outcome.FAILED
            state.trace.provider = result.provider
            state.error = result.error
            return
        state.has_answer = True
        exchange.begin(result.answer.response.head)
        try:
            await self._relay_chunks(result, exchange, state)
        except errors.Temporary as error:
            state.outcome = Outcome.CUT
            log.warning("answer_cut", provider=result.provider.name, error=str(error))
        finally:
            await result.answer.response.close()

    async def _relay_chunks(
        self, opened: OpenedResponse, exchange: Exchange, state: CallState
    ) -> None:
        async with aclosing(opened.answer.chunks()) as chunks:
            async for chunk in chunks:
                state.meter.feed(chunk)
                exchange.write(chunk)
        state.outcome = Outcome.SERVED

    async def _settle(
        self,
        request: ProviderRequest,
        reservation: Reservation,
        state: CallState,
        duration_ms: int,
    ) -> None:
        """Write the account in a task that outlives us: a cancelled call must be paid for too."""
        task = self._start_account_task(
            self._write_account(reservation, _summarize(request, state, duration_ms))
        )
        await asyncio.wait({task}, timeout=_ACCOUNT_WAIT_S)

    async def _write_account(self, reservation: Reservation, ended: CallResult) -> None:
        """Retry until the store has the account. If we die before, the reservation expires."""
        context = self._context
        for attempt in itertools.count(1):
            try:
                call = await context.in_thread(spending.settle, context.deps, reservation, ended)
            except errors.Temporary as error:
                log.warning("account_delayed", call=reservation.call_id, error=str(error))
                await asyncio.sleep(min(_ACCOUNT_RETRY_MAX_S, attempt))
            else:
                context.metrics.count_call(call)
                return

    def _start_account_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="settle")
        self._account_tasks.add(task)
        task.add_done_callback(self._account_tasks.discard)
        return task


def _make_meter(request: ProviderRequest) -> StreamMeter | BodyMeter:
    is_streamed = request.parsed.stream
    return StreamMeter(request.parsed) if is_streamed else BodyMeter(request.parsed)


def _summarize(request: ProviderRequest, state: CallState, duration_ms: int) -> CallResult:
    provider = state.trace.provider
    return CallResult(
        provider=provider.name if provider else "",
        model=provider.model_for(request.parsed) if provider else request.parsed.model,
        counts=_measure_usage(request, state).counts,
        outcome=state.outcome,
        duration_ms=duration_ms,
    )


def _measure_usage(request: ProviderRequest, state: CallState) -> Metered:
    lost = state.trace.lost_answers
    if state.has_answer:
        is_cut = state.outcome is Outcome.CUT
        metered = state.meter.result_if_cut() if is_cut else state.meter.result()
        counts = sum([metering.worst_case(request.parsed)] * lost, metered.counts)
        return replace(metered, counts=counts)
    # Nobody tells us what it cost that a provider may have worked on it: assume the most.
    if lost:
        counts = metering.lost_answer(request.parsed)
    elif state.outcome is Outcome.CANCELLED and state.trace.provider is not None:
        counts = metering.worst_case(request.parsed)
    else:
        counts = TokenCounts()
    return Metered(counts=counts, whole=False)


def _finish(exchange: Exchange, state: CallState) -> None:
    """End the exchange. Comes after the account, so that a complete answer is accounted for."""
    if state.error is not None:
        exchange.fail(state.error)
    elif state.outcome is Outcome.CUT:
        exchange.cut()
    else:
        exchange.complete()
