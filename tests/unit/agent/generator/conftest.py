"""A generator's surroundings: a small home, a scripted model behind it, the agent's end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent.generator.order import Order

from orchestrator.contract.wire import Limits
from tests.fakes.agents.agent import FakeAgent
from tests.fakes.agents.home import SESSION_TOKEN, FakeHome
from tests.fakes.llm.messages_api import MessagesApi
from tests.unit.agent.generator.talk import FakeTime


@pytest.fixture(scope="module")
def provider() -> Iterator[MessagesApi]:
    with MessagesApi() as server:
        yield server


@pytest.fixture
def home(provider: MessagesApi) -> Iterator[FakeHome]:
    folder = Path(tempfile.mkdtemp(prefix="home-"))  # a socket's path must be short
    with FakeHome(folder) as made:
        made.model_url = provider.url
        yield made
    shutil.rmtree(folder)


@pytest.fixture
def model(provider: MessagesApi) -> MessagesApi:
    provider.reset()
    return provider


@pytest.fixture
def order(home: FakeHome, tmp_path: Path) -> Order:
    return Order(
        socket=str(home.socket_path),
        folder=str(tmp_path),
        token=SESSION_TOKEN,
        request="a page",
        conversation=(),
        model="claude-sonnet-5-5",
        max_tokens=4000,
        expected_output_tokens=500,
        limits=Limits(),
        upload_max_bytes=7 * 1024**2,
    )


@pytest.fixture
def agent(tmp_path: Path) -> FakeAgent:
    return FakeAgent(tmp_path)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()
