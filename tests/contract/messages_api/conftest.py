"""The scripted Messages API, shared by the tests of a module, and the SDK that talks to it."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest

from tests.fakes.llm.messages_api import MessagesApi


@pytest.fixture(scope="module")
def server() -> Iterator[MessagesApi]:
    with MessagesApi() as server:
        yield server


@pytest.fixture
def api(server: MessagesApi) -> MessagesApi:
    server.reset()
    return server


@pytest.fixture
def client(api: MessagesApi) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="k", base_url=api.url, max_retries=0) as sdk:
        yield sdk
