"""The story of one call: reserve, wait for a turn, find who answers, pass it on, settle."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from orchestrator.domain import errors
from orchestrator.domain.llm.attempts import Verdict
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.domain.llm.usage import Outcome, Reservation
from orchestrator.domain.sessions.session import Session
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.gateway import wire
from orchestrator.entrypoints.api.gateway.chain import Chain, Failed, Opened, Trace
from orchestrator.entrypoints.api.gateway.exchange import Exchange
from orchestrator.entrypoints.api.gateway.limiter import Limiter
from orchestrator.entrypoints.api.gateway.providers import Outgoing
from orchestrator.entrypoints.api.gateway.wire import Refusal
from orchestrator.services.llm import metering, spending
from orchestrator.services.llm.metering import BodyMeter, Metered, StreamMeter
from orchestrator.services.llm.spending import Ended
from orchestrator.slim import structlog

_SETTLE_PAUSE_MAX_S = 30
_CLOSE_S = 5.0
_SETTLE_PATIENCE_S = 1.0  # for which an answer's end waits for its account

log = structlog.get_logger()


@dataclass(kw_only=True)
class Tally:
    """How a call stands: what would be accounted if it ended now."""

    meter: StreamMeter | BodyMeter
    trace: Trace = field(default_factory=Trace)
    outcome: Outcome = Outcome.CANCELLED
    begun: bool = False  # whether an answer has
    refusal: Refusal | None = None  # what is answered instead


class Calls:
    """Makes calls and accounts for them."""

    def __init__(self, context: Context, chain: Chain, limiter: Limiter, holder: str) -> None:
        self._context = context
        self._chain = chain
        self._limiter = limiter
        self._holder = holder
        self._settling: set[asyncio.Task[None]] = set()

    async def make(self, session: Session, call: Outgoing, exchange: Exchange) -> None:
        """One call, its answer written into `exchange`."""
        tally = Tally(meter=_meter(call))
        try:
            reserved = await self._reserved(session, call)
            began_s = asyncio.get_running_loop().time()
            try:
                await self._serve(session, call, exchange, tally)
            finally:
                took_s = asyncio.get_running_loop().time() - began_s
                await self._settle(call, reserved, tally, round(1000 * took_s))
        except errors.SpawnError as error:
            tally.refusal = wire.refusal_of(error)
        _finish(exchange, tally)

    async def count(self, session: Session, call: Outgoing, exchange: Exchange) -> None:
        """One call that counts tokens: free, and so neither reserved nor accounted."""
        tally = Tally(meter=_meter(call))
        try:
            await self._serve(session, call, exchange, tally)
        except errors.SpawnError as error:
            tally.refusal = wire.refusal_of(error)
        _finish(exchange, tally)

    async def close(self) -> None:
        """Wait a moment for accounts that are being written; the rest will have been LOST."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=_CLOSE_S)
        for writing in self._settling:
            writing.cancel()

    async def _reserved(self, session: Session, call: Outgoing) -> Reservation:
        reserving = asyncio.create_task(self._reserve(session, call), name="reserve")
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            # The store may have it by now, and we would renew it for ever.
            self._in_background(self._undo(call, reserving))
            raise

    async def _undo(self, call: Outgoing, reserving: asyncio.Task[Reservation]) -> None:
        with suppress(errors.SpawnError):
            await self._write_account(await reserving, _ended(call, Tally(meter=_meter(call)), 0))

    async def _reserve(self, session: Session, call: Outgoing) -> Reservation:
        context = self._context
        try:
            return await context.in_thread(
                spending.reserve,
                context.deps,
                session,
                call.ask,
                self._chain.models_for(call.ask),
                self._holder,
            )
        except errors.BudgetExhausted as error:
            context.board.refused.labels(error.detail["scope"]).inc()
            raise

    async def _serve(
        self, session: Session, call: Outgoing, exchange: Exchange, tally: Tally
    ) -> None:
        try:
            async with self._limiter.slot(session.user_id):
                await self._answer(call, exchange, tally)
        except errors.LimitReached:
            tally.outcome = Outcome.FAILED
            raise

    async def _answer(self, call: Outgoing, exchange: Exchange, tally: Tally) -> None:
        found = await self._chain.open(call, tally.trace)
        if isinstance(found, Failed):
            final = found.verdict is Verdict.FINAL
            tally.outcome = Outcome.REFUSED if final else Outcome.FAILED
            tally.trace.asking = found.provider
            tally.refusal = found.refusal
            return
        tally.begun = True
        exchange.begin(found.answer.head)
        try:
            await self._pass_on(found, exchange, tally)
        except errors.Temporary as broken:
            tally.outcome = Outcome.CUT
            log.warning("an answer broke off", provider=found.provider.name, why=str(broken))
        finally:
            await found.answer.close()

    async def _pass_on(self, found: Opened, exchange: Exchange, tally: Tally) -> None:
        async with aclosing(found.chunks()) as chunks:
            async for chunk in chunks:
                tally.meter.feed(chunk)
                exchange.write(chunk)
        tally.outcome = Outcome.SERVED

    async def _settle(
        self, call: Outgoing, reserved: Reservation, tally: Tally, duration_ms: int
    ) -> None:
        """Write the account. Its task outlives us: whoever cancels a call must still pay for it."""
        writing = self._in_background(
            self._write_account(reserved, _ended(call, tally, duration_ms))
        )
        await asyncio.wait({writing}, timeout=_SETTLE_PATIENCE_S)

    async def _write_account(self, reserved: Reservation, ended: Ended) -> None:
        """Until the store has it, or this process ends: then the reservation runs out."""
        context = self._context
        for number in itertools.count(1):
            try:
                done = await context.in_thread(spending.settle, context.deps, reserved, ended)
            except errors.Temporary as error:
                log.warning("a call can't be accounted yet", call=reserved.call_id, why=str(error))
                await asyncio.sleep(min(_SETTLE_PAUSE_MAX_S, number))
            else:
                context.board.accounted(done)
                return

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="settle")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task


def _meter(call: Outgoing) -> StreamMeter | BodyMeter:
    return StreamMeter(call.ask) if call.ask.stream else BodyMeter(call.ask)


def _ended(call: Outgoing, tally: Tally, duration_ms: int) -> Ended:
    provider = tally.trace.asking
    return Ended(
        provider=provider.name if provider else "",
        model=provider.model_for(call.ask) if provider else call.ask.model,
        counts=_metered(call, tally).counts,
        outcome=tally.outcome,
        duration_ms=duration_ms,
    )


def _metered(call: Outgoing, tally: Tally) -> Metered:
    if tally.begun:
        return tally.meter.result()
    # Cancelled while somebody may have worked on it: what that cost, nobody says.
    sent = tally.outcome is Outcome.CANCELLED and tally.trace.asking is not None
    return Metered(counts=metering.unknown(call.ask) if sent else TokenCounts(), whole=False)


def _finish(exchange: Exchange, tally: Tally) -> None:
    """Last of all, so that who has the whole answer has been accounted for."""
    if tally.refusal is not None:
        exchange.refuse(tally.refusal)
    elif tally.outcome is Outcome.CUT:
        exchange.cut()
    else:
        exchange.end()
