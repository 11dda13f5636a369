"""Tries the providers in order, with retries, until one of them starts a response. `call` uses it.

domain/llm/attempts.py and breakers.py decide what to try next; this module carries it out. Once
the first bytes of a successful response are here, no other provider is tried: the client gets
those bytes, and they can't be taken back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from orchestrator.contract import json_bounds
from orchestrator.domain import errors
from orchestrator.domain.llm import attempts, breakers
from orchestrator.domain.llm.attempts import Candidate, Verdict
from orchestrator.domain.llm.breakers import Breaker
from orchestrator.domain.llm.requests import ModelRequest
from orchestrator.entrypoints.api.gateway import wire
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics
from orchestrator.entrypoints.api.gateway.providers import (
    AnswerLost,
    Provider,
    ProviderRequest,
    ProviderResponse,
)
from orchestrator.entrypoints.api.gateway.wire import ErrorResponse, Head
from orchestrator.slim import structlog

_ERROR_MAX_BYTES = 64 * 1024
_ERROR_VALUES_MAX = 1_000
_ERROR_EVENT = b"event: error"
_STATUS_OF_ERROR_EVENT = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}  # all others: 500
# From the error that tells a client most about what to do, to the one that tells least.
_MOST_INFORMATIVE_FIRST = (Verdict.FINAL, Verdict.RETRY, Verdict.KEY_REFUSED, Verdict.UNFIT)

Lesson = Callable[[Breaker], Breaker]

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class OpenedResponse:
    """A successful response whose first bytes are here."""

    provider: Provider
    response: ProviderResponse
    first_chunk: bytes  # read from `response` already

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The whole body. Raises errors.Temporary if the connection breaks."""
        yield self.first_chunk
        async for chunk in self.response.chunks:
            yield chunk


@dataclass(frozen=True, kw_only=True)
class FailedAttempt:
    """An attempt that gave no answer, and the error that the client would get for it."""

    provider: Provider
    verdict: Verdict
    error: ErrorResponse


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
        self, providers: Sequence[Provider], retry_s: float, metrics: GatewayMetrics
    ) -> None:
        """`retry_s`: for how long one call may try before it gets an error."""
        self._providers = {provider.name: provider for provider in providers}
        self._breakers = {provider.name: Breaker() for provider in providers}
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
        failures: list[FailedAttempt] = []
        while True:
            step = attempts.next_step(self._with_breakers(candidates), _now_s(), deadline_s)
            if isinstance(step, attempts.GiveUp):
                return self._most_informative(failures)
            if isinstance(step, attempts.Pause):
                await asyncio.sleep(step.seconds)
                continue
            result = await self._attempt(self._providers[step.name], request, trace)
            if isinstance(result, OpenedResponse) or result.verdict is Verdict.FINAL:
                return result
            failures.append(result)
            candidates[step.name] = self._record_failure(candidates[step.name], result)

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
                response = await provider.send(request)
                first_chunk = await _read_first_chunk(response)
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
            head = _effective_head(response.head, first_chunk)
            verdict = attempts.judge(head.status, head.headers)
            watch.says(_lesson(verdict, head))
        result = await self._judge(provider, response, first_chunk)
        if isinstance(result, FailedAttempt):
            trace.provider = None
        return result

    @contextmanager
    def _watched(self, provider: Provider) -> Iterator[_Watch]:
        """Tell the breaker how a call ends, on every way out: a trial call is never kept."""
        watch = _Watch()
        self._update_breaker(provider, _record_start_now)
        try:
            yield watch
        finally:
            self._update_breaker(provider, watch.lesson)

    async def _judge(
        self, provider: Provider, response: ProviderResponse, first_chunk: bytes
    ) -> OpenedResponse | FailedAttempt:
        """Decide from the status whether this is an answer. Reads and closes an error."""
        head = _effective_head(response.head, first_chunk)
        verdict = attempts.judge(head.status, head.headers)
        if verdict is Verdict.SERVED:
            self._metrics.record_accepted_key(provider.setting)
            return OpenedResponse(provider=provider, response=response, first_chunk=first_chunk)
        body = await _read_error_body(response, first_chunk)
        if head is not response.head:
            body = body.partition(b"data:")[2].strip()
        if verdict is Verdict.KEY_REFUSED:
            return self._record_refused_key(provider, head, body)
        error = ErrorResponse(head=head, body=body)
        return FailedAttempt(provider=provider, verdict=verdict, error=error)

    def _record_refused_key(self, provider: Provider, head: Head, body: bytes) -> FailedAttempt:
        reason = f"{provider.setting} was refused ({head.status}): {_error_message(body)}"
        self._metrics.record_refused_key(provider.setting, reason)
        log.error("provider_key_refused", provider=provider.name, reason=reason)
        error = wire.error_response_for(errors.Unauthorized(reason, code="provider_auth"))
        return FailedAttempt(provider=provider, verdict=Verdict.KEY_REFUSED, error=error)

    def _record_failure(self, candidate: Candidate, failure: FailedAttempt) -> Candidate:
        head = failure.error.head
        self._metrics.failed_attempts.labels(candidate.name).inc()
        log.warning(
            "provider_attempt_failed",
            provider=candidate.name,
            attempt=candidate.tries + 1,
            status=head.status,
        )
        jitter = random.random()  # noqa: S311 - it spreads retries out; nothing secret
        return attempts.record_failure(candidate, failure.verdict, head.headers, _now_s(), jitter)

    def _most_informative(self, failures: Sequence[FailedAttempt]) -> FailedAttempt:
        """The failure to report. It tells the client not to retry, because we have retried."""
        if not failures:
            return _all_breakers_open(next(iter(self._providers.values())))
        failure = min(
            reversed(failures),
            key=lambda failure: _MOST_INFORMATIVE_FIRST.index(failure.verdict),
        )
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


async def _read_first_chunk(response: ProviderResponse) -> bytes:
    """The first bytes of the body, or b"" if it is empty. Closes the response on an error."""
    try:
        return await anext(response.chunks, b"")
    except BaseException:
        await response.close()
        raise


async def _read_error_body(response: ProviderResponse, first_chunk: bytes) -> bytes:
    """The body up to a limit. Closes the response."""
    body = first_chunk
    with suppress(errors.Temporary):  # even a part of an error message helps
        async for chunk in response.chunks:
            body += chunk
            if len(body) > _ERROR_MAX_BYTES:
                break
    await response.close()
    return body


def _effective_head(head: Head, first_chunk: bytes) -> Head:
    """A stream that starts with an error event counts as an error, even if its status is 200."""
    if head.status >= 400 or not first_chunk.startswith(_ERROR_EVENT):
        return head
    status = _STATUS_OF_ERROR_EVENT.get(_error_type(first_chunk), 500)
    return Head(status=status, headers={**head.headers, "content-type": "application/json"})


def _error_type(event: bytes) -> str:
    try:
        data = event.partition(b"data:")[2]
        return str(json_bounds.decode(data, _ERROR_VALUES_MAX)["error"]["type"])
    except (ValueError, KeyError, TypeError):
        return ""


def _error_message(body: bytes) -> str:
    try:
        return str(json_bounds.decode(body, _ERROR_VALUES_MAX)["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return "no reason given"


def _cannot_translate(provider: Provider, error: errors.InvalidInput) -> FailedAttempt:
    response = wire.error_response_for(error)
    return FailedAttempt(provider=provider, verdict=Verdict.UNFIT, error=response)


def _no_answer(provider: Provider, error: errors.Temporary) -> FailedAttempt:
    response = wire.error_response(
        502, "api_error", str(error), code="provider_unavailable", headers={}
    )
    return FailedAttempt(provider=provider, verdict=Verdict.RETRY, error=response)


def _all_breakers_open(provider: Provider) -> FailedAttempt:
    response = wire.error_response(
        529,
        "overloaded_error",
        "no provider has answered lately; try again in a moment",
        code="provider_unavailable",
        headers={"retry-after": f"{breakers.OPEN_FOR_S:g}"},
    )
    return FailedAttempt(provider=provider, verdict=Verdict.RETRY, error=response)
