"""What a provider may have worked on is paid for, although no answer came back."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from orchestrator.domain.llm import requests
from orchestrator.domain.llm.budgets import Spend
from orchestrator.services.llm import metering
from tests.fakes.llm.providers import INPUT_TOKENS, ProviderFake, Scripted
from tests.integration.gateway.world import (
    BODY,
    GatewayWorld,
    gateway_for,
    settings_for,
    wait_until,
)


class DeafProvider:
    """Takes requests, and hangs up without a word."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.recv(1024 * 1024)
                    self.requests += 1

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def deaf() -> Iterator[DeafProvider]:
    provider = DeafProvider()
    yield provider
    provider.close()


def whole_cost(**changes: object) -> int:
    """The tokens of a call if the provider does all that the request allows."""
    raw = httpx2.Request("POST", "http://home", json={**BODY, **changes}).content
    return metering.lost_answer(requests.parse(raw)).total


@pytest.mark.parametrize("streamed", [True, False])
def test_a_call_whose_answer_was_lost_costs_all_that_was_set_aside(
    deaf: DeafProvider, tmp_path: Path, migrated_sqlite: Path, streamed: bool
) -> None:
    settings = settings_for(tmp_path, deaf, provider_retry_s=0.2)
    with gateway_for(settings, migrated_sqlite) as world:
        session = world.session()
        assert world.ask(session, stream=streamed).status_code == 502
        assert deaf.requests >= 1
        ((name, calls, tokens, micro_usd),) = world.accounts(session)
    assert (name, calls, tokens) == ("anthropic", 1, whole_cost(stream=streamed))
    assert micro_usd > 0


def test_a_call_that_never_arrived_costs_nothing(tmp_path: Path, migrated_sqlite: Path) -> None:
    class Nobody:
        url = "http://127.0.0.1:9"

    settings = settings_for(tmp_path, Nobody(), provider_retry_s=0.1)
    with gateway_for(settings, migrated_sqlite) as world:
        session = world.session()
        assert world.ask(session).status_code == 502
        assert world.accounts(session) == []
        key = f"session:{session.id}"
        wait_until(lambda: world.deps.store.usage.spent([key]) == {key: Spend()})


def test_a_stream_that_the_provider_cut_costs_its_whole_output(
    served: Callable[..., GatewayWorld], provider: ProviderFake
) -> None:
    world = served()
    provider.play(Scripted(cut_after=4))
    session = world.session()
    with pytest.raises(httpx2.RemoteProtocolError):
        world.ask(session, stream=True)
    world.ask(world.session())  # its account is written after the first one's
    ((_, _, tokens, _),) = world.accounts(session)
    assert tokens == INPUT_TOKENS + BODY["max_tokens"]
