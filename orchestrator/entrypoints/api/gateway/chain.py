"""Asks the providers, one after the other and as often as makes sense, until one begins to answer.

domain/llm/attempts.py and breakers.py decide what to do next. Once an answer's first bytes are
there it is passed on, for better or worse: a client has seen them.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from orchestrator.domain import errors
from orchestrator.domain.llm import attempts, breakers
from orchestrator.domain.llm.attempts import Candidate, Verdict
from orchestrator.domain.llm.breakers import Breaker
from orchestrator.domain.llm.requests import Ask
from orchestrator.entrypoints.api.gateway import wire
from orchestrator.entrypoints.api.gateway.board import Board
from orchestrator.entrypoints.api.gateway.providers import Answer, Outgoing, Provider
from orchestrator.entrypoints.api.gateway.wire import Head, Refusal
from orchestrator.slim import structlog

_ERROR_MAX_BYTES = 64 * 1024
_STREAMED_ERROR = b"event: error"
_STREAMED_STATUS = {"overloaded_error": 529, "rate_limit_error": 429}
# From the error that says most about what to do, to the one that says least.
_TELLING = (Verdict.FINAL, Verdict.RETRY, Verdict.KEY_REFUSED, Verdict.UNFIT)

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An answer that has begun."""

    provider: Provider
    answer: Answer
    first: bytes  # taken off it already

    async def chunks(self) -> AsyncGenerator[bytes]:
        """All of its body. Raises errors.Temporary where it breaks off."""
        yield self.first
        async for chunk in self.answer.chunks:
            yield chunk


@dataclass(frozen=True, kw_only=True)
class Failed:
    """An attempt that did not serve."""

    provider: Provider
    verdict: Verdict
    refusal: Refusal


@dataclass(kw_only=True)
class Trace:
    """Who has a call, for whoever has to account for it when it is cancelled."""

    asking: Provider | None = None  # it may have begun to work on the call


class Chain:
    """The providers, and a breaker for each."""

    def __init__(self, providers: Sequence[Provider], retry_s: float, board: Board) -> None:
        """`retry_s`: for how long one call may look for somebody who answers."""
        self._providers = {provider.name: provider for provider in providers}
        self._breakers = {provider.name: Breaker() for provider in providers}
        self._retry_s = retry_s
        self._board = board
        for name, breaker in self._breakers.items():
            board.breaker(name, breaker.state)

    def models_for(self, ask: Ask) -> Sequence[str]:
        """The models that may come to serve a request; empty when there is no provider."""
        return [provider.model_for(ask) for provider in self._providers.values()]

    async def open(self, call: Outgoing, trace: Trace) -> Opened | Failed:
        """The first answer that begins, or the most telling error."""
        ends_s = _now() + self._retry_s
        candidates = {name: Candidate(name=name) for name in self._providers}
        failures: list[Failed] = []
        while True:
            step = attempts.next_step(self._seen(candidates), _now(), ends_s)
            if isinstance(step, attempts.GiveUp):
                return self._most_telling(failures)
            if isinstance(step, attempts.Pause):
                await asyncio.sleep(step.seconds)
                continue
            tried = await self._try(self._providers[step.name], call, trace)
            if isinstance(tried, Opened) or tried.verdict is Verdict.FINAL:
                return tried
            failures.append(tried)
            candidates[step.name] = self._after(candidates[step.name], tried)

    def _seen(self, candidates: dict[str, Candidate]) -> list[Candidate]:
        now_s = _now()
        return [
            replace(one, blocked_until_s=breakers.ready_at_s(self._breakers[name], now_s))
            for name, one in candidates.items()
        ]

    async def _try(self, provider: Provider, call: Outgoing, trace: Trace) -> Opened | Failed:
        began_s = _now()
        self._move(provider, breakers.begun)
        trace.asking = provider
        try:
            answer = await provider.ask(call)
            first = await _first(answer)
        except errors.InvalidInput as unfit:
            self._move(provider, breakers.abandoned)
            return _unfit(provider, unfit)
        except errors.Temporary as silent:
            trace.asking = None
            self._move(provider, lambda breaker: breakers.failed(breaker, _now()))
            return _silent(provider, silent)
        except asyncio.CancelledError:
            self._move(provider, breakers.abandoned)
            raise
        self._board.first_byte.labels(provider.name).observe(_now() - began_s)
        judged = await self._judged(provider, answer, first)
        if isinstance(judged, Failed):
            trace.asking = None
        return judged

    async def _judged(self, provider: Provider, answer: Answer, first: bytes) -> Opened | Failed:
        head = _real_head(answer.head, first)
        verdict = attempts.judge(head.status, head.headers)
        if verdict is Verdict.RETRY:
            self._move(provider, lambda breaker: breakers.failed(breaker, _now()))
        else:
            self._move(provider, breakers.answered)
        if verdict is Verdict.SERVED:
            self._board.key_accepted(provider.setting)
            return Opened(provider=provider, answer=answer, first=first)
        body = await _rest(answer, first)
        if head is not answer.head:
            body = body.partition(b"data:")[2].strip()
        if verdict is Verdict.KEY_REFUSED:
            return self._key_refused(provider, head, body)
        return Failed(provider=provider, verdict=verdict, refusal=Refusal(head=head, body=body))

    def _key_refused(self, provider: Provider, head: Head, body: bytes) -> Failed:
        said = f"{provider.setting} was refused ({head.status}): {_message(body)}"
        self._board.key_refused(provider.setting, said)
        log.error("a provider refuses our key", provider=provider.name, said=said)
        refusal = wire.refusal_of(errors.Unauthorized(said, code="provider_auth"))
        return Failed(provider=provider, verdict=Verdict.KEY_REFUSED, refusal=refusal)

    def _after(self, candidate: Candidate, tried: Failed) -> Candidate:
        self._board.retries.labels(candidate.name).inc()
        log.warning(
            "a provider did not serve a call",
            provider=candidate.name,
            tries=candidate.tries + 1,
            status=tried.refusal.head.status,
        )
        jitter = random.random()  # noqa: S311 - keeps retries apart; nothing secret
        headers = tried.refusal.head.headers
        return attempts.after(candidate, tried.verdict, headers, _now(), jitter)

    def _most_telling(self, failures: Sequence[Failed]) -> Failed:
        """With the retries done here, so that a client doesn't do them all over again."""
        if not failures:
            return _resting(next(iter(self._providers.values())))
        chosen = min(reversed(failures), key=lambda one: _TELLING.index(one.verdict))
        head = chosen.refusal.head
        told = replace(head, headers={**head.headers, "x-should-retry": "false"})
        return replace(chosen, refusal=replace(chosen.refusal, head=told))

    def _move(self, provider: Provider, change: Callable[[Breaker], Breaker]) -> None:
        before = self._breakers[provider.name]
        after = self._breakers[provider.name] = change(before)
        if after.state is not before.state:
            self._board.breaker(provider.name, after.state)
            log.warning("a breaker moved", provider=provider.name, state=after.state.value)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _first(answer: Answer) -> bytes:
    try:
        return await anext(answer.chunks, b"")
    except BaseException:
        await answer.close()
        raise


async def _rest(answer: Answer, first: bytes) -> bytes:
    body = first
    with suppress(errors.Temporary):  # half an error still says something
        async for chunk in answer.chunks:
            body += chunk
            if len(body) > _ERROR_MAX_BYTES:
                break
    await answer.close()
    return body


def _real_head(head: Head, first: bytes) -> Head:
    """A stream whose first event is an error is an error, whatever its status said."""
    if head.status >= 400 or not first.startswith(_STREAMED_ERROR):
        return head
    status = next((code for kind, code in _STREAMED_STATUS.items() if kind.encode() in first), 500)
    return Head(status=status, headers={**head.headers, "content-type": "application/json"})


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return "no reason given"


def _unfit(provider: Provider, error: errors.InvalidInput) -> Failed:
    return Failed(provider=provider, verdict=Verdict.UNFIT, refusal=wire.refusal_of(error))


def _silent(provider: Provider, error: errors.Temporary) -> Failed:
    refusal = wire.refusal(502, "api_error", str(error), code="provider_unavailable", headers={})
    return Failed(provider=provider, verdict=Verdict.RETRY, refusal=refusal)


def _resting(provider: Provider) -> Failed:
    refusal = wire.refusal(
        529,
        "overloaded_error",
        "no provider has answered lately; try again in a moment",
        code="provider_unavailable",
        headers={"retry-after": f"{breakers.REST_S:g}"},
    )
    return Failed(provider=provider, verdict=Verdict.RETRY, refusal=refusal)
