"""What a call teaches the breaker of its provider, and to whom a call is accounted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import pytest

from orchestrator.domain import errors
from orchestrator.domain.llm import breakers, requests
from orchestrator.domain.llm.requests import ModelRequest
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics
from orchestrator.entrypoints.api.gateway.provider_chain import (
    FailedAttempt,
    OpenedResponse,
    ProviderChain,
    Trace,
)
from orchestrator.entrypoints.api.gateway.providers.provider import (
    AnswerLost,
    ProviderRequest,
    ProviderResponse,
)
from orchestrator.entrypoints.api.gateway.wire import Head

RAW = b'{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}'
STREAMED = RAW[:-1] + b', "stream": true}'
MESSAGE = b'{"type": "message", "content": []}'
GONE = errors.Temporary("nobody answers", code="provider_unavailable")

T = TypeVar("T")


class LoopWithClock(asyncio.SelectorEventLoop):
    """An event loop whose time a test moves on."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


class ScriptedProvider:
    """Answers with a status, or raises."""

    name = "scripted"
    setting = "SCRIPTED_KEY"

    def __init__(self) -> None:
        self.answer: int | bytes | BaseException = 200  # bytes: a stream that begins with them
        self.calls = 0

    def model_for(self, request: ModelRequest) -> str:
        return request.model

    def body_for(self, request: ProviderRequest) -> Mapping[str, Any]:
        return request.parsed.body

    async def send(self, _: ProviderRequest) -> ProviderResponse:
        self.calls += 1
        if isinstance(self.answer, BaseException):
            raise self.answer

        status, first = (
            (200, self.answer) if isinstance(self.answer, bytes) else (self.answer, MESSAGE)
        )

        async def body() -> AsyncIterator[bytes]:
            yield first

        # The last word about retries is the provider's: one try for each call.
        head = Head(status=status, headers={"x-should-retry": "false"})
        return ProviderResponse(head=head, chunks=body())


class Chain:
    """A chain of one provider, and a clock."""

    def __init__(self) -> None:
        self.provider = ScriptedProvider()
        self.metrics = GatewayMetrics()
        self.trace = Trace()
        self._chain = ProviderChain(
            [self.provider], retry_s=0.0, silence_s=120.0, metrics=self.metrics
        )

    async def ask(
        self, answer: int | bytes | BaseException, path: str = "/v1/messages", raw: bytes = RAW
    ) -> OpenedResponse | FailedAttempt:
        self.provider.answer = answer
        parsed = requests.parse(raw, counting=False)
        request = ProviderRequest(
            path=path, query="", headers={}, raw=raw, parsed=parsed, digest=b""
        )
        return await self._chain.open_response(request, self.trace)

    async def open_breaker(self) -> None:
        """Let the provider fail until its breaker opens, and let the rest be over."""
        for _ in range(breakers.FAILURES_TO_OPEN):
            await self.ask(GONE)
        assert self.is_open
        loop = asyncio.get_running_loop()
        assert isinstance(loop, LoopWithClock)
        loop.ahead_s += breakers.OPEN_FOR_S + 1

    @property
    def is_open(self) -> bool:
        labels = {"provider": "scripted", "state": "open"}
        return self.metrics.registry.get_sample_value("spawn_llm_breaker", labels) == 1


def run(scenario: Callable[[Chain], Awaitable[T]]) -> T:
    async def main() -> T:
        return await scenario(Chain())

    with asyncio.Runner(loop_factory=LoopWithClock) as runner:
        return runner.run(main())


class Interrupted(BaseException):
    """Ends a call like a signal does."""


@pytest.mark.parametrize(
    "failure",
    [
        ValueError("a bug of ours"),
        UnicodeEncodeError("ascii", "caf\xe9", 3, 4, "ordinal not in range"),
        asyncio.CancelledError(),
        Interrupted(),
    ],
    ids=["bug", "header", "cancelled", "interrupted"],
)
def test_a_trial_call_that_ends_unexpectedly_gives_its_trial_back(failure: BaseException) -> None:
    async def scenario(chain: Chain) -> bool:
        await chain.open_breaker()
        with pytest.raises(type(failure)):
            await chain.ask(failure)
        return isinstance(await chain.ask(200), OpenedResponse)

    assert run(scenario), "the provider answers, so the next call must reach it"


def test_a_trial_call_that_the_provider_can_not_take_gives_its_trial_back() -> None:
    async def scenario(chain: Chain) -> tuple[bool, Trace]:
        await chain.open_breaker()
        refused = await chain.ask(errors.InvalidInput("no tools there"))
        assert isinstance(refused, FailedAttempt)
        trace = Trace(provider=chain.trace.provider)
        return isinstance(await chain.ask(200), OpenedResponse), trace

    is_served, trace = run(scenario)
    assert is_served
    assert trace.provider is None, "nobody was asked, so nobody charges us"


@pytest.mark.parametrize(
    ("status", "path", "opens"),
    [
        (400, "/v1/messages", False),
        (413, "/v1/messages", False),
        (409, "/v1/messages", False),
        (429, "/v1/messages", False),
        (429, "/v1/messages/count_tokens", False),
        (500, "/v1/messages", True),
        (500, "/v1/messages/count_tokens", True),
    ],
)
def test_what_a_client_causes_opens_no_breaker(status: int, path: str, opens: bool) -> None:
    async def scenario(chain: Chain) -> bool:
        for _ in range(3 * breakers.FAILURES_TO_OPEN):
            await chain.ask(status, path)
        return chain.is_open

    assert run(scenario) is opens


@pytest.mark.parametrize(
    ("error_type", "opens"),
    [
        ("invalid_request_error", False),
        ("rate_limit_error", False),
        ("overloaded_error", True),
        ("api_error", True),
    ],
)
def test_an_error_in_a_stream_teaches_what_its_type_says_and_not_its_words(
    error_type: str, opens: bool
) -> None:
    message = "no rate_limit_error, no overloaded_error, no invalid_request_error"
    event = {"type": "error", "error": {"type": error_type, "message": message}}

    async def scenario(chain: Chain) -> bool:
        for _ in range(3 * breakers.FAILURES_TO_OPEN):
            await chain.ask(f"event: error\ndata: {json.dumps(event)}\n\n".encode(), raw=STREAMED)
        return chain.is_open

    assert run(scenario) is opens


def late_answer() -> AnswerLost:
    late = AnswerLost("no answer in time")
    late.is_late = True
    return late


@pytest.mark.parametrize(
    ("lost", "streamed", "opens"),
    [
        (late_answer(), False, False),
        (late_answer(), True, True),
        (AnswerLost("it hung up"), False, True),
    ],
    ids=["late whole answer", "late stream", "hang-up"],
)
def test_an_answer_whose_length_the_client_chose_may_come_late_without_opening_the_breaker(
    lost: AnswerLost, streamed: bool, opens: bool
) -> None:
    raw = json.dumps({**json.loads(RAW), "stream": streamed}).encode()

    async def scenario(chain: Chain) -> tuple[bool, int]:
        for _ in range(breakers.FAILURES_TO_OPEN):
            await chain.ask(lost, raw=raw)
        return chain.is_open, chain.trace.lost_answers

    assert run(scenario) == (opens, breakers.FAILURES_TO_OPEN)
