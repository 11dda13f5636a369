"""Providers that keep a connection open after the end of an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import httpx2

from orchestrator.domain.llm import requests
from orchestrator.entrypoints.api.gateway.providers.openai import OpenAi
from orchestrator.entrypoints.api.gateway.providers.provider import ProviderRequest
from tests.compat import answers
from tests.compat.answers import chunk, completions
from tests.fakes.llm.odd_provider import OddProvider
from tests.integration.gateway.world import BODY, events_of, gateway_for, settings_for

WITHIN_S = 30  # far longer than the waits of these tests, far shorter than a provider's silence


def read(url: str) -> Sequence[str]:
    """The kinds of the events of an OpenAI-compatible endpoint that may be silent for an hour."""
    raw = json.dumps({**BODY, "stream": True}).encode()
    request = ProviderRequest(
        path="/v1/messages",
        query="",
        headers={},
        raw=raw,
        parsed=requests.parse(raw),
        digest=b"",
    )

    async def main() -> bytes:
        async with asyncio.timeout(WITHIN_S), httpx2.AsyncClient() as client:
            endpoint = OpenAi(
                client,
                base_url=url,
                key="",
                model="gpt-x",
                limit_field="max_tokens",
                silence_s=3600,
                last_chunk_s=0.05,
            )
            response = await endpoint.send(request)
            body = b"".join([part async for part in response.chunks])
            await response.close()
            return body

    return [event["type"] for event in events_of(asyncio.run(main()))]


def test_an_answer_with_its_reason_to_stop_is_not_waited_for() -> None:
    answer = completions(chunk(content="Hi"), chunk("stop"), end=b"", stays_open=True)
    with OddProvider(answers.always(answer)) as provider:
        assert read(provider.url)[-2:] == ["message_delta", "message_stop"]


def test_a_client_gets_the_end_of_a_stream_whose_connection_stays_open(
    tmp_path: Path, migrated_sqlite: Path
) -> None:
    answer = answers.stream(answers.RAW, stays_open=True)
    with (
        OddProvider(answers.always(answer)) as provider,
        gateway_for(settings_for(tmp_path, provider), migrated_sqlite) as world,
    ):
        session = world.session()
        assert world.ask(session, stream=True).content == answers.RAW
        assert world.metric("spawn_llm_calls_total", provider="anthropic", outcome="served") == 1
        assert world.accounts(session)[0][:3] == ("anthropic", 1, sum(answers.USAGE.values()))
