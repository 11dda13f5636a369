"""No endpoint calls the store on the event loop, except for lookups by key that wait for nobody."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from orchestrator import config, ports
from orchestrator.domain.people.access import ApiKey
from orchestrator.domain.sessions.session import Session
from orchestrator.entrypoints.api import public_app
from orchestrator.entrypoints.api.agents import app as agent_app
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.gateway.app import Gateway
from tests.event_loops import store_calls_on_loops
from tests.fakes.hub import deaf_hub
from tests.fakes.samples import NOW
from tests.unit.entrypoints.api.conftest import Api
from tests.unit.services.conftest import session
from tests.unit.services.world import World

__all__ = ["session"]


@pytest.fixture
def context(world: World, tmp_path: Path) -> Iterator[Context]:
    settings = config.make(state_dir=tmp_path, anthropic_api_key="sk-x")
    context = Context(settings=settings, deps=world.deps, hub=deaf_hub(), started_at=NOW)
    yield context
    context.threads.shutdown()


def calls_of(routes: list[Route], session_id: str) -> Iterator[tuple[str, str]]:
    """Method and path of a request to each route."""
    for route in routes:
        path = route.path.replace("{session_id}", session_id)
        for method in sorted(set(route.methods or ()) - {"HEAD", "OPTIONS"}):
            yield method, re.sub(r"\{\w+(:\w+)?\}", "1", path)


def routes_of(app: object) -> list[Route]:
    routes = [route for route in app.routes if isinstance(route, Route)]  # type: ignore[attr-defined]  # of Starlette
    assert routes
    return routes


@pytest.mark.parametrize("caller", ["visitor", "user", "operator"])
def test_no_endpoint_of_the_page_and_the_api_blocks_the_loop(
    request: pytest.FixtureRequest, context: Context, session: Session, caller: str
) -> None:
    api: Api = request.getfixturevalue(caller)
    app = public_app.build(context)
    for method, path in calls_of(routes_of(app), session.id):
        with store_calls_on_loops() as places, TestClient(app, base_url="http://localhost") as http:
            http.request(method, path, headers=api.headers, json={})
            if method == "GET":
                http.request(method, path, headers=api.headers, params={"wait": "0.01"})
        assert places == [], (method, path)


@pytest.mark.parametrize("kind", ["none", "nonsense", "its session's", "a sandbox's", "outdated"])
def test_no_endpoint_of_the_agents_blocks_the_loop(
    world: World, context: Context, session: Session, kind: str
) -> None:
    assert session.sandbox_id is not None
    token = {
        "none": "",
        "nonsense": "nonsense",
        "a sandbox's": world.deps.tokens.for_sandbox(session.sandbox_id),
    }.get(kind, world.token(session))
    if kind == "outdated":
        world.request_end(session)
    app = agent_app.build(context, Gateway(context))
    for method, path in calls_of(routes_of(app), session.id):
        headers = {"Authorization": f"Bearer {token}", "x-api-key": token}
        with store_calls_on_loops() as places, TestClient(app) as client:
            client.request(method, path, headers=headers, params={"wait": "0.01"}, json={})
        assert places == [], (method, path)


def is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class KeysThatNote:
    """The keys of a store. They note whether they are looked up on an event loop."""

    def __init__(self, keys: ports.Keys) -> None:
        self._keys = keys
        self.on_loop: list[bool] = []

    def by_hash(self, key_hash: str) -> ApiKey | None:
        self.on_loop.append(is_on_loop())
        return self._keys.by_hash(key_hash)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keys, name)


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "/api/sessions/{}"), ("GET", "/api/sessions"), ("GET", "/api/admin/keys")],
)
def test_who_asks_is_found_out_without_a_thread(
    world: World, context: Context, session: Session, operator: Api, method: str, path: str
) -> None:
    keys = KeysThatNote(world.store.keys)
    world.store.keys = keys  # type: ignore[misc,assignment]  # of a Protocol
    app = public_app.build(context)
    with TestClient(app, base_url="http://localhost", headers=operator.headers) as http:
        assert http.request(method, path.format(session.id)).is_success
    assert keys.on_loop == [True]
