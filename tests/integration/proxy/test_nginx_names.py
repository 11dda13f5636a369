"""Names at a real nginx: which reach the page, which an app, and which nothing at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from orchestrator.adapters.proxy.http_probe import HttpProbe
from orchestrator.contract.health import Condition
from tests.integration.proxy.raw_http import read_all
from tests.integration.proxy.world import World, running_world

HOSTS = ("spawn.example.com", "localhost", "127.0.0.1", "[::1]", "10.0.0.5")


@pytest.fixture(name="world", scope="module")
def _world() -> Iterator[World]:
    with running_world(page_hosts=HOSTS) as world:
        yield world


@pytest.mark.parametrize("name", [*HOSTS, "LOCALHOST", "localhost."])
def test_a_name_of_the_page_reaches_the_api(world: World, name: str) -> None:
    host = f"{name}:{world.settings.listen_port}"

    assert world.ask(host, "/api/templates?x=1").body == "api"
    assert world.api.heads[-1].target == "/api/templates?x=1"
    if not name.endswith("."):
        assert world.api.heads[-1].headers["host"] == host


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "x.localhost", "10.0.0.6", "_"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_any_other_name_gets_a_page_that_says_so(world: World, host: str, method: str) -> None:
    world.api.heads.clear()

    response = world.ask(host, "/some/path", method, body=b"{}" if method == "POST" else None)

    assert response.status == 421
    assert response.headers["content-type"] == "text/html"
    assert response.headers["cache-control"] == "no-store"
    assert "SPAWN_EXTRA_HOSTS" in response.body
    assert world.api.heads == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_program_that_uses_another_name_gets_a_problem(world: World, method: str) -> None:
    world.api.heads.clear()

    response = world.ask("evil.example", "/api/sessions", method)

    assert response.status == 421
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(response.body)["code"] == "host_refused"
    assert json.loads(response.body)["status"] == 421
    assert world.api.heads == []


def test_the_request_line_cannot_smuggle_another_name(world: World) -> None:
    world.api.heads.clear()
    for target, host, status in (
        ("http://evil.example/", "localhost", 421),
        ("http://localhost/", "evil.example", 200),
    ):
        with world.connect() as client:
            client.sendall(f"GET {target} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            assert read_all(client).startswith(f"HTTP/1.1 {status} ")

    assert [head.headers["host"] for head in world.api.heads] == ["localhost"]


def test_a_request_without_a_name_is_misdirected(world: World) -> None:
    with world.connect() as client:
        client.sendall(b"GET /api/templates HTTP/1.0\r\n\r\n")
        assert read_all(client).startswith("HTTP/1.1 421 ")


def test_the_apps_domain_itself_is_no_page(world: World) -> None:
    response = world.ask("apps.localhost")

    assert response.status == 404
    assert "There is no app here" in response.body


def test_the_page_may_have_the_name_of_the_apps_domain() -> None:
    with running_world(page_hosts=("apps.localhost",)) as world:
        slug, _ = world.publish_app()

        assert world.ask("apps.localhost").body == "api"
        assert world.ask(world.host(slug)).body == slug


def test_a_proxy_on_an_ipv6_address_is_reached_by_it() -> None:
    with running_world(listen_address="::1", page_hosts=("localhost", "[::1]")) as world:
        slug, _ = world.publish_app()
        port = world.settings.listen_port

        assert world.ask(f"[::1]:{port}", address="::1").body == "api"
        assert world.ask(f"[::2]:{port}", address="::1").status == 421
        finding = asyncio.run(HttpProbe(f"[::1]:{port}", world.settings.apps_domain).walk(slug))
        assert finding.condition is Condition.WELL
