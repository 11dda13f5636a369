"""A provider that is silent for long: its client is told that the answer is awaited."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from orchestrator.entrypoints.api.gateway import wire
from tests.fakes.llm.providers import ProviderFake, Scripted
from tests.integration.gateway.world import BODY, GatewayWorld, events_of, gateway_for, settings_for


@pytest.fixture
def world(provider: ProviderFake, tmp_path: Path, migrated_sqlite: Path) -> Iterator[GatewayWorld]:
    settings = settings_for(tmp_path, provider, provider_retry_s=0.1)
    with gateway_for(settings, migrated_sqlite, ping_s=0.02) as gateway:
        yield gateway


def answer_after_pings(world: GatewayWorld, provider: ProviderFake) -> httpx2.Response:
    """Ask, and let the provider answer once two pings have come."""
    session = world.session()
    provider.hold()
    headers = {"x-api-key": world.token(session)}
    with world.http().stream(
        "POST", "/v1/messages", json={**BODY, "stream": True}, headers=headers
    ) as answer:
        chunks = answer.iter_raw()
        body = b""
        while body.count(wire.PING) < 2:
            body += next(chunks)
        provider.release()
        body += b"".join(chunks)
        return httpx2.Response(answer.status_code, headers=answer.headers, content=body)


def test_a_model_that_reads_for_long_is_waited_for_and_asked_once(
    world: GatewayWorld, provider: ProviderFake
) -> None:
    answer = answer_after_pings(world, provider)
    assert answer.headers["content-type"].startswith("text/event-stream")
    kinds = [event["type"] for event in events_of(answer.content)]
    assert kinds[:2] == ["ping", "ping"]
    assert kinds[-1] == "message_stop"
    assert len(provider.requests) == 1


def test_an_error_after_pings_is_an_event_of_the_stream(
    world: GatewayWorld, provider: ProviderFake
) -> None:
    provider.always(Scripted(status=401, error="authentication_error"))
    answer = answer_after_pings(world, provider)
    assert answer.status_code == 200
    last = events_of(answer.content)[-1]
    assert (last["type"], last["error"]["type"]) == ("error", "authentication_error")
    assert last["error"]["code"] == "provider_auth"
