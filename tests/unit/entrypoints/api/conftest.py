"""The public app over the world of the services: real endpoints, no server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from starlette.testclient import TestClient

from orchestrator import config
from orchestrator.domain.people.access import Role
from orchestrator.domain.sessions.session import Tier
from orchestrator.entrypoints.api import public_app
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.hub import Hub
from orchestrator.services.people import keys
from tests.fakes.samples import NOW
from tests.unit.services.conftest import catalog, world
from tests.unit.services.world import World

__all__ = ["catalog", "world"]


class Api:
    """Asks as somebody with a key."""

    def __init__(self, client: TestClient, key: str = "") -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of the answer."""
        answer = self._client.request(method, path, json=body, headers=self._headers)
        return answer.status_code, answer.json()

    def text(self, path: str) -> str:
        return str(self._client.get(path, headers=self._headers).text)


@pytest.fixture
def client(world: World, tmp_path: Path) -> Iterator[TestClient]:
    nobody = redis.asyncio.Redis(unix_socket_path=str(tmp_path / "nobody.sock"))
    context = Context(
        settings=config.make(state_dir=tmp_path), deps=world.deps, hub=Hub(nobody), started_at=NOW
    )
    with TestClient(public_app.build(context)) as opened:
        yield opened
    context.threads.shutdown()


@pytest.fixture
def operator(world: World, client: TestClient) -> Api:
    made = keys.create(world.deps, "ops", Tier.OPERATOR, Role.OPERATOR)
    return Api(client, made.secret)


@pytest.fixture
def user(world: World, client: TestClient) -> Api:
    made = keys.create(world.deps, "ci", Tier.PRO, Role.USER)
    return Api(client, made.secret)


@pytest.fixture
def visitor(client: TestClient) -> Api:
    return Api(client)
