"""The public app over the services' test world: real endpoints, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from orchestrator import config
from orchestrator.domain.people.access import Role
from orchestrator.domain.sessions.session import Tier
from orchestrator.entrypoints.api import public_app
from orchestrator.entrypoints.api.context import Context
from orchestrator.services.people import keys
from tests.event_loops import store_calls_on_loops
from tests.fakes.hub import deaf_hub
from tests.fakes.samples import NOW
from tests.unit.services.conftest import catalog, world
from tests.unit.services.world import World

__all__ = ["catalog", "world"]


class Api:
    """Makes requests with a key, or as a visitor without one."""

    def __init__(self, client: TestClient, key: str = "") -> None:
        self._client = client
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Make a request; return status and JSON of the answer."""
        answer = self._client.request(method, path, json=body, headers=self.headers)
        return answer.status_code, answer.json()

    def text(self, path: str) -> str:
        return str(self._client.get(path, headers=self.headers).text)


@contextmanager
def serving(world: World, folder: Path, **settings: Any) -> Iterator[TestClient]:
    """A client of the public app with these settings."""
    context = Context(
        settings=config.make(state_dir=folder, **settings),
        deps=world.deps,
        hub=deaf_hub(),
        started_at=NOW,
        answers_kept_s=0.0,
    )
    with TestClient(public_app.build(context), base_url="http://localhost") as test_client:
        yield test_client
    context.threads.shutdown()


@pytest.fixture
def client(world: World, tmp_path: Path) -> Iterator[TestClient]:
    with serving(world, tmp_path) as test_client:
        yield test_client


@pytest.fixture
def operator(world: World, client: TestClient) -> Api:
    new_key = keys.create(world.deps, "ops", Tier.OPERATOR, Role.OPERATOR)
    return Api(client, new_key.secret)


@pytest.fixture
def user(world: World, client: TestClient) -> Api:
    new_key = keys.create(world.deps, "ci", Tier.PRO, Role.USER)
    return Api(client, new_key.secret)


@pytest.fixture
def visitor(client: TestClient) -> Api:
    return Api(client)


@pytest.fixture(autouse=True)
def _no_store_call_on_a_loop() -> Iterator[None]:
    with store_calls_on_loops() as places:
        yield
    assert places == []
