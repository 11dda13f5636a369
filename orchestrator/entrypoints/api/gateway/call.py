"""Runs one call of an agent: reserve its cost, wait for a slot, relay the answer, account for it.

`app` starts a call for each exchange. `chain` finds the provider that answers.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from orchestrator.domain import errors
from orchestrator.domain.llm.attempts import Verdict
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.domain.llm.usage import Outcome
from orchestrator.domain.sessions.session import Session
from orchestrator.entrypoints.api.gateway import pings, wire
from orchestrator.entrypoints.api.gateway.accounts import Accounts
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
from orchestrator.services.llm import metering
from orchestrator.services.llm.metering import BodyMeter, Metered, StreamMeter
from orchestrator.services.llm.spending import CallResult
from orchestrator.slim import structlog

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
        chain: ProviderChain,
        limiter: Limiter,
        shares: Shares,
        accounts: Accounts,
        ping_s: float,
    ) -> None:
        """`ping_s`: how often the client of a stream that hasn't begun is told that it is
        awaited."""
        self._accounts = accounts
        self._shares = shares
        self._chain = chain
        self._limiter = limiter
        self._ping_s = ping_s

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
        models = self._chain.models_for(request.parsed)
        reservation = await self._accounts.reserve(session, request.parsed, models)
        started_s = asyncio.get_running_loop().time()
        try:
            await self._answer_in_slot(session, request, exchange, state)
        finally:
            duration_s = asyncio.get_running_loop().time() - started_s
            result = _summarize(request, state, round(1000 * duration_s))
            await self._accounts.settle(reservation, result)

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
