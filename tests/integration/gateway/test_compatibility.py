"""Each row of the table of providers, against a provider that does just that."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from agent.generator import model
from agent.generator.reply import Reply

from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.domain.llm import requests
from orchestrator.entrypoints.api.gateway.clients import Clients
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics
from orchestrator.entrypoints.api.gateway.provider_chain import (
    FailedAttempt,
    OpenedResponse,
    ProviderChain,
    Trace,
)
from orchestrator.entrypoints.api.gateway.providers.configured import configured_providers
from orchestrator.entrypoints.api.gateway.providers.provider import ProviderRequest
from tests.compat import providers
from tests.compat.answers import STREAM, error, unless
from tests.compat.cases import Api, Case, Outcome
from tests.fakes.llm.odd_provider import OddProvider
from tests.fakes.llm.providers import WORDS, ProviderFake
from tests.integration.gateway.world import BODY, settings_for

NOBODY = "http://127.0.0.1:9"
SILENCE_S = 0.3


class Asked:
    """What came of one call."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self.trace = Trace()
        self.metrics = metrics
        self.result: OpenedResponse | FailedAttempt | None = None
        self.raw = b""
        self.content: list[Any] = []
        self.stop_reason = ""
        self.is_cut = False

    @property
    def failure(self) -> FailedAttempt:
        assert isinstance(self.result, FailedAttempt), self.content
        return self.result


def chain_for(
    case: Case, folder: Path, url: str, others: dict[str, Any], asked: Asked
) -> tuple[ProviderChain, Clients]:
    changes = (
        {"anthropic_api_key": "", "openai_base_url": url, "openai_model": case.model}
        if case.api is Api.OPENAI
        else {"anthropic_base_url": url}
    )
    settings: Settings = settings_for(folder, ProviderAt(url), **changes, **others)
    # Shorter than a setting may be: the test waits for it.
    llm = settings.llm.model_copy(update={"provider_silence_s": SILENCE_S})
    settings = settings.model_copy(update={"llm": llm})
    clients = Clients(settings)
    chain = ProviderChain(
        configured_providers(settings, clients),
        retry_s=5.0 if case.outcome.asks > 1 or case.outcome.is_patient else 0.0,
        silence_s=SILENCE_S,
        metrics=asked.metrics,
    )
    return chain, clients


class ProviderAt:
    """An address."""

    def __init__(self, url: str) -> None:
        self.url = url


def request_of(case: Case) -> ProviderRequest:
    raw = json.dumps({**BODY, "stream": case.is_streamed, **case.asked}).encode()
    return ProviderRequest(
        path="/v1/messages",
        query="",
        headers={},
        raw=raw,
        parsed=requests.parse(raw),
        digest=b"",
    )


def ask(case: Case, folder: Path, url: str, *, times: int = 1, **others: Any) -> Asked:
    """Make the case's call, and read the whole answer."""
    asked = Asked(GatewayMetrics())

    async def main() -> None:
        chain, clients = chain_for(case, folder, url, others, asked)
        for _ in range(times):
            asked.result = await chain.open_response(request_of(case), asked.trace)
            if isinstance(asked.result, OpenedResponse):
                await read(asked, asked.result, case)
        await clients.close()

    asyncio.run(main())
    return asked


async def read(asked: Asked, opened: OpenedResponse, case: Case) -> None:
    asked.raw = b""
    try:
        async for chunk in opened.answer.chunks():
            asked.raw += chunk
    except errors.Temporary:
        asked.is_cut = True
    await opened.answer.response.close()
    head = opened.answer.response.head
    if case.is_streamed:
        assert head.headers["content-type"].startswith("text/event-stream")
        message = streamed(asked.raw)
    else:
        assert head.headers["content-type"] == "application/json"
        message = json.loads(asked.raw)
    asked.content = blocks(message["content"])
    asked.stop_reason = message["stop_reason"]
    if case.api is Api.OPENAI:
        call_ids = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        assert len({*call_ids}) == len(call_ids)
        assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", call_id) for call_id in call_ids)


def streamed(raw: bytes) -> dict[str, Any]:
    """The message of a stream, line ends as in the reference."""
    content: list[dict[str, Any]] = []
    numbers: dict[int, int] = {}
    stop_reason = None
    for event in model.events([raw]):
        if event["type"] == "content_block_start":
            numbers[event["index"]] = len(content)
            content.append({**event["content_block"], "json": ""})
        elif event["type"] == "content_block_delta":
            block, delta = content[numbers[event["index"]]], event["delta"]
            for field in ("text", "thinking"):
                if field in delta:
                    block[field] = block.get(field, "") + delta[field]
            block["json"] += delta.get("partial_json", "")
        elif event["type"] == "message_delta":
            stop_reason = event["delta"]["stop_reason"]
    for block in content:
        block["input"] = json.loads(block.pop("json") or "{}")
    return {"content": content, "stop_reason": stop_reason}


def blocks(content: Sequence[dict[str, Any]]) -> list[Any]:
    shown = {
        "text": lambda block: block["text"],
        "thinking": lambda block: f"({block['thinking']})",
        "tool_use": lambda block: block["input"],
    }
    return [shown[block["type"]](block) for block in content if block["type"] in shown]


def understood_by_the_generator(raw: bytes) -> Reply:
    """What our agent makes of a whole stream. It raises Interrupted for any other one."""
    reply = Reply()
    assert b"message_stop" in raw or b"event: error" in raw
    for event in model.events([raw]):
        if event["type"] == "error":
            raise model.translate_event(event)
        reply.feed(event)
    return reply


def ids(case: Case) -> str:
    return f"{case.api.name.lower()}: {case.behaviour}"


def check_generator(case: Case, asked: Asked) -> None:
    """Our agent reads a stream as the table says, or asks again."""
    if not case.is_streamed or asked.is_cut:
        return
    if case.outcome.has_error:
        with pytest.raises(model.Interrupted):
            understood_by_the_generator(asked.raw)
        return
    reply = understood_by_the_generator(asked.raw)
    assert blocks(reply.content) == [*case.outcome.content]
    assert [call.input for call in reply.calls] == [
        shown for shown in case.outcome.content if isinstance(shown, dict)
    ]
    assert reply.stop_reason == asked.stop_reason


@pytest.mark.parametrize("case", providers.CASES, ids=ids)
def test_a_provider_alone_leads_to_the_outcome_in_the_table(case: Case, tmp_path: Path) -> None:
    outcome = case.outcome
    with OddProvider(case.answers) as provider:
        asked = ask(case, tmp_path, provider.url if case.is_listening else NOBODY)
        assert len(provider.bodies) == (outcome.asks if case.is_listening else 0)
    assert asked.trace.lost_answers == outcome.is_billed
    assert [outcome.ready_says in reason for reason in asked.metrics.refused_keys.values()] == (
        [True] if outcome.ready_says else []
    )
    if not outcome.is_next_asked:
        assert isinstance(asked.result, OpenedResponse), asked.failure.error.body
        assert (asked.is_cut, asked.content) == (outcome.is_cut, [*outcome.content])
        assert outcome.stop_reason in ("", asked.stop_reason)
        check_generator(case, asked)
        return
    error = json.loads(asked.failure.error.body)
    assert (asked.failure.error.head.status, error["type"]) == (outcome.status, "error")
    assert error["error"]["type"] == outcome.kind
    assert asked.failure.error.code == outcome.code
    assert error["error"]["message"]


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in providers.CASES
        if case.outcome.is_next_asked and case.api is Api.MESSAGES  # the other is the last one
    ],
    ids=ids,
)
def test_another_provider_serves_what_the_table_says_it_does(
    case: Case, tmp_path: Path, second: ProviderFake
) -> None:
    others = {"fallback_api_key": "k", "fallback_base_url": second.url}
    with OddProvider(case.answers) as provider:
        url = provider.url if case.is_listening else NOBODY
        asked = ask(case, tmp_path, url, **others)
    assert "".join(map(str, asked.content)) == "".join(WORDS)


def test_a_field_that_may_only_have_a_wrong_value_is_left_out_of_that_request_alone(
    tmp_path: Path,
) -> None:
    words = "adaptive thinking is not supported on this model"
    case = Case(
        api=Api.MESSAGES,
        behaviour=words,
        answers=unless("thinking", error(400, words), STREAM),
        outcome=Outcome(asks=2, left_out=("thinking",)),
        asked={"thinking": {"type": "adaptive"}},
    )
    with OddProvider(case.answers) as provider:
        asked = ask(case, tmp_path, provider.url, times=2)
        assert isinstance(asked.result, OpenedResponse), asked.failure.error.body
        assert ["thinking" in body for body in provider.bodies] == [True, False, True, False]


@pytest.mark.parametrize(
    "case", [case for case in providers.CASES if case.outcome.left_out], ids=ids
)
def test_a_field_that_was_refused_stays_out(case: Case, tmp_path: Path) -> None:
    with OddProvider(case.answers) as provider:
        ask(case, tmp_path, provider.url, times=3)
        assert len(provider.bodies) == case.outcome.asks + 2
        for name in case.outcome.left_out:
            assert f'"{name}"' not in json.dumps(provider.bodies[-1])
