"""Tries the providers in order, with retries, until one of them starts a response. `call` uses it.

domain/llm/attempts.py and breakers.py decide what to try next; this module carries it out. Once
the first bytes of a successful response are here, no other provider is tried: the client gets
those bytes, and they can't be taken back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from orchestrator.domain import errors
from orchestrator.domain.llm import attempts, breakers, optional_fields
from orchestrator.domain.llm.attempts import Candidate, Verdict
from orchestrator.domain.llm.breakers import Breaker
from orchestrator.domain.llm.requests import ModelRequest
from orchestrator.entrypoints.api.gateway import first_event, wire
from orchestrator.entrypoints.api.gateway.first_event import Answer, Refusal
from orchestrator.entrypoints.api.gateway.left_out import LeftOut
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics
from orchestrator.entrypoints.api.gateway.providers.provider import (
    AnswerLost,
    NoAnswer,
    Provider,
    ProviderRequest,
)
from orchestrator.entrypoints.api.gateway.wire import ErrorResponse, Head
from orchestrator.slim import structlog

# The error to report if no provider serves: one that may pass, for then somebody may serve later;
# then from the one that tells a client most about what to do, to the one that tells least.
_REPORTED_FIRST = (
    *(Verdict.RETRY, Verdict.NONSENSE, Verdict.REFUSED),
    *(Verdict.NO_CREDIT, Verdict.KEY_REFUSED, Verdict.UNFIT),
)

_TRIAL_SLACK_S = 30.0  # after the wait for a first byte, a trial call tells something

Lesson = Callable[[Breaker], Breaker]

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class OpenedResponse:
    """An answer that has begun, and who gives it."""

    provider: Provider
    answer: Answer


@dataclass(frozen=True, kw_only=True)
class FailedAttempt:
    """An attempt that gave no answer, and the error that the client would get for it."""

    provider: Provider
    verdict: Verdict
    error: ErrorResponse
    message: str = ""  # the provider's own words


@dataclass(kw_only=True)
class Trace:
    """Names the provider that a call is accounted to.

    The chain sets it while a provider may be working on the call. If the client leaves then, the
    call is accounted to that provider: it may charge us.
    """

    provider: Provider | None = None
    lost_answers: int = 0  # attempts that the provider got and may bill, though we got no answer


class _Watch:
    """What a call taught about its provider. Nothing, unless somebody says so."""

    def __init__(self) -> None:
        self.lesson: Lesson = breakers.record_nothing

    def says(self, lesson: Lesson) -> None:
        self.lesson = lesson


class ProviderChain:
    """The providers in the order of their use, with a circuit breaker for each."""

    def __init__(
        self,
        providers: Sequence[Provider],
        *,
        retry_s: float,
        silence_s: float,
        metrics: GatewayMetrics,
    ) -> None:
        """`retry_s`: for how long one call may try before it gets an error. `silence_s`: the
        longest wait for a first byte."""
        self._providers = {provider.name: provider for provider in providers}
        trial_s = silence_s + _TRIAL_SLACK_S
        self._breakers = {provider.name: Breaker(trial_s=trial_s) for provider in providers}
        self._left_out = {provider.name: LeftOut() for provider in providers}
        self._retry_s = retry_s
        self._metrics = metrics
        for name, breaker in self._breakers.items():
            metrics.set_breaker_state(name, breaker.state)

    def models_for(self, request: ModelRequest) -> Sequence[str]:
        """The models that may serve a request. Empty if there is no provider."""
        return [provider.model_for(request) for provider in self._providers.values()]

    async def open_response(
        self, request: ProviderRequest, trace: Trace
    ) -> OpenedResponse | FailedAttempt:
        """The first response that succeeds, or the most informative failure."""
        deadline_s = _now_s() + self._retry_s
        candidates = {name: Candidate(name=name) for name in self._providers}
        failures: dict[str, FailedAttempt] = {}  # the last one of each provider
        while True:
            step = attempts.next_step(self._with_breakers(candidates), _now_s(), deadline_s)
            if isinstance(step, attempts.GiveUp):
                return self._most_informative([*failures.values()])
            if isinstance(step, attempts.Pause):
                await asyncio.sleep(step.seconds)
                continue
            result = await self._attempt_without(self._providers[step.name], request, trace)
            if isinstance(result, OpenedResponse):
                return result
            failures[step.name] = result
            candidates[step.name] = self._record_failure(candidates[step.name], result)

    async def _attempt_without(
        self, provider: Provider, request: ProviderRequest, trace: Trace
    ) -> OpenedResponse | FailedAttempt:
        """Send the request to one provider; again without a field that it doesn't know."""
        left_out = self._left_out[provider.name]
        known = left_out.names(request, _now_s())
        request = replace(request, without=known)
        while True:
            result = await self._attempt(provider, request, trace)
            if isinstance(result, OpenedResponse):
                left_out.remember(request, request.without - known, _now_s())
                return result
            field = _refused_field(provider, request, result)
            if field is None:
                return result
            log.warning("field_left_out", provider=provider.name, field=field)
            if not optional_fields.is_lesson(result.message):
                known |= {field}  # it may be about this request alone: nothing to remember
            request = replace(request, without=request.without | {field})

    def _with_breakers(self, candidates: dict[str, Candidate]) -> list[Candidate]:
        now_s = _now_s()
        return [
            replace(candidate, blocked_until_s=breakers.ready_at_s(self._breakers[name], now_s))
            for name, candidate in candidates.items()
        ]

    async def _attempt(
        self, provider: Provider, request: ProviderRequest, trace: Trace
    ) -> OpenedResponse | FailedAttempt:
        """Send the request to one provider, once."""
        started_s = _now_s()
        with self._watched(provider) as watch:
            trace.provider = provider
            try:
                result = await first_event.read(await provider.send(request), request)
            except errors.InvalidInput as error:
                trace.provider = None
                return _cannot_translate(provider, error)
            except AnswerLost as error:
                trace.provider = None
                trace.lost_answers += 1
                if not (error.is_late and _sets_its_own_time(request)):
                    watch.says(_record_failure_now)
                return _no_answer(provider, error)
            except errors.Temporary as error:
                trace.provider = None
                watch.says(_record_failure_now)
                return _no_answer(provider, error)
            self._metrics.first_byte.labels(provider.name).observe(_now_s() - started_s)
            if isinstance(result, Answer):
                watch.says(breakers.record_answer)
                self._metrics.record_accepted_key(provider.setting)
                return OpenedResponse(provider=provider, answer=result)
            trace.provider = None
            trace.lost_answers += attempts.may_have_worked(result.head.status)
            verdict = attempts.judge(result.head.status, result.head.headers, result.error)
            watch.says(_lesson(verdict, result.head))
        return self._failed(provider, verdict, result)

    @contextmanager
    def _watched(self, provider: Provider) -> Iterator[_Watch]:
        """Tell the breaker how a call ends, on every way out: a trial call is never kept."""
        watch = _Watch()
        self._update_breaker(provider, _record_start_now)
        try:
            yield watch
        finally:
            self._update_breaker(provider, watch.lesson)

    def _failed(self, provider: Provider, verdict: Verdict, refusal: Refusal) -> FailedAttempt:
        message = refusal.error.message
        if verdict in (Verdict.NO_CREDIT, Verdict.KEY_REFUSED):
            error = self._record_refused_key(provider, verdict, refusal)
        else:
            error = ErrorResponse(head=refusal.head, body=refusal.body)
        return FailedAttempt(provider=provider, verdict=verdict, error=error, message=message)

    def _record_refused_key(
        self, provider: Provider, verdict: Verdict, refusal: Refusal
    ) -> ErrorResponse:
        is_empty = verdict is Verdict.NO_CREDIT
        fault = "has no credit" if is_empty else "was refused"
        words = refusal.error.message[:300] or "no reason given"
        reason = f"{provider.setting} {fault} ({refusal.head.status}): {words}"
        self._metrics.record_refused_key(provider.setting, reason)
        log.error("provider_key_refused", provider=provider.name, reason=reason)
        if is_empty:
            return wire.error_response_for(errors.NoCredit(reason))
        return wire.error_response_for(errors.Unauthorized(reason, code="provider_auth"))

    def _record_failure(self, candidate: Candidate, failure: FailedAttempt) -> Candidate:
        head = failure.error.head
        self._metrics.failed_attempts.labels(candidate.name).inc()
        log.warning(
            "provider_attempt_failed",
            provider=candidate.name,
            attempt=candidate.tries + 1,
            status=head.status,
            verdict=failure.verdict.value,
            reason=failure.message[:300],
        )
        jitter = random.random()  # noqa: S311 - it spreads retries out; nothing secret
        return attempts.record_failure(candidate, failure.verdict, head.headers, _now_s(), jitter)

    def _most_informative(self, failures: Sequence[FailedAttempt]) -> FailedAttempt:
        """The failure to report. It tells the client not to retry, because we have retried."""
        if not failures:
            return _all_breakers_open(next(iter(self._providers.values())))
        failure = min(failures, key=lambda failure: _REPORTED_FIRST.index(failure.verdict))
        head = failure.error.head
        final_head = replace(head, headers={**head.headers, "x-should-retry": "false"})
        return replace(failure, error=replace(failure.error, head=final_head))

    def _update_breaker(self, provider: Provider, change: Lesson) -> None:
        before = self._breakers[provider.name]
        after = self._breakers[provider.name] = change(before)
        if after.state is not before.state:
            self._metrics.set_breaker_state(provider.name, after.state)
            log.warning("breaker_changed", provider=provider.name, state=after.state.value)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _lesson(verdict: Verdict, head: Head) -> Lesson:
    """What an answer teaches. An error that a client of ours can cause at will is no outage."""
    if verdict is not Verdict.RETRY:
        return breakers.record_answer
    if head.status < 500:
        return breakers.record_nothing  # such as 429: we ask too much, and it is there
    return _record_failure_now


def _sets_its_own_time(request: ProviderRequest) -> bool:
    """Whether the request decides how long the provider is silent: it asks for a long answer."""
    return not (request.parsed.stream or request.counts_tokens)


def _record_start_now(breaker: Breaker) -> Breaker:
    return breakers.record_start(breaker, _now_s())


def _record_failure_now(breaker: Breaker) -> Breaker:
    return breakers.record_failure(breaker, _now_s())


def _refused_field(
    provider: Provider, request: ProviderRequest, failure: FailedAttempt
) -> str | None:
    """The field of this request that the provider doesn't know and can be asked without."""
    if failure.verdict is not Verdict.REFUSED or failure.error.head.status not in (400, 422):
        return None
    return optional_fields.refused_in(failure.message, provider.body_for(request))


def _cannot_translate(provider: Provider, error: errors.InvalidInput) -> FailedAttempt:
    response = wire.error_response_for(error)
    return FailedAttempt(provider=provider, verdict=Verdict.UNFIT, error=response)


def _no_answer(provider: Provider, error: errors.Temporary) -> FailedAttempt:
    response = wire.error_response(
        502, "api_error", str(error), code="provider_unavailable", headers={}
    )
    verdict = Verdict.NONSENSE if isinstance(error, NoAnswer) else Verdict.RETRY
    return FailedAttempt(provider=provider, verdict=verdict, error=response, message=str(error))


def _all_breakers_open(provider: Provider) -> FailedAttempt:
    response = wire.error_response(
        529,
        "overloaded_error",
        "no provider has answered lately; try again in a moment",
        code="provider_unavailable",
        headers={"retry-after": f"{breakers.OPEN_FOR_S:g}"},
    )
    return FailedAttempt(provider=provider, verdict=Verdict.RETRY, error=response)
