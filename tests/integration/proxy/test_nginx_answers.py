"""What an app's answer can do to a real nginx, and what of it reaches visitors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.adapters.proxy.http_probe import HttpProbe
from orchestrator.contract.heads import HEAD_MAX_BYTES, HEAD_ROOM_BYTES
from tests.integration.proxy.world import World, respond_with, running_world

STEERING = {
    "X-Accel-Redirect": "/.spawn-pages/502.html",
    "X-Accel-Expires": "60",
    "X-Accel-Limit-Rate": "100000",
    "X-Accel-Buffering": "yes",
    "X-Accel-Charset": "koi8-r",
    "X-Sendfile": "/etc/passwd",
    "X-LIGHTTPD-send-file": "/etc/passwd",
    "X-LiteSpeed-Location": "/etc/passwd",
    "X-Reproxy-URL": "http://127.0.0.1/",
    "Surrogate-Control": "max-age=60",
    "CDN-Cache-Control": "max-age=60",
    "Cloudflare-CDN-Cache-Control": "max-age=60",
    "Edge-Control": "max-age=60",
    "Cache-Tag": "all",
    "Alt-Svc": 'h3="elsewhere:443"',
}
ORDINARY = {"cache-control": "max-age=5", "x-frame-options": "DENY", "location": "/next"}


@pytest.fixture(name="world", scope="module")
def _world() -> Iterator[World]:
    with running_world() as world:
        yield world


def lines(headers: dict[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items()]


def test_an_app_steers_neither_nginx_nor_what_stands_in_front(world: World) -> None:
    answer = respond_with("its own", "200 OK", *lines({**STEERING, **ORDINARY}))
    slug, _ = world.publish_app(answer)

    response = world.ask(world.host(slug))

    assert (response.status, response.body) == (200, "its own")
    assert not {name.lower() for name in STEERING} & response.headers.keys()
    assert response.headers.items() >= ORDINARY.items()


@pytest.mark.parametrize("place", ["/.spawn-pages/502.html", "@too_many", "@repeatable"])
@pytest.mark.parametrize("is_app", [True, False])
def test_no_answer_reaches_an_internal_location(world: World, place: str, is_app: bool) -> None:
    answer = respond_with("its own", "200 OK", f"X-Accel-Redirect: {place}")
    if is_app:
        host = world.host(world.publish_app(answer)[0])
    else:
        world.api.open(answer)
        host = "localhost"

    response = world.ask(host)

    assert (response.status, response.body) == (200, "its own")


def test_a_head_of_64_kib_passes_in_both_directions(world: World) -> None:
    start = len("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\nX-Long: \r\n\r\n")
    longest = "x" * (HEAD_MAX_BYTES - start)
    slug, app = world.publish_app(respond_with("long", "200 OK", f"X-Long: {longest}"))

    # The app of this test reads only so much itself.
    response = world.ask(world.host(slug), headers={"Cookie": "a=" + "b" * 60_000})

    assert (response.status, response.body) == (200, "long")
    assert response.headers["x-long"] == longest
    assert len(app.heads[-1].headers["cookie"]) == 60_002


def test_a_longer_head_of_an_answer_becomes_the_502_page(world: World) -> None:
    longer = "x" * (HEAD_MAX_BYTES + HEAD_ROOM_BYTES)
    slug, _ = world.publish_app(respond_with("long", "200 OK", f"X-Long: {longer}"))

    response = world.ask(world.host(slug))

    assert response.status == 502
    assert "answering" in response.body


@pytest.mark.parametrize(
    ("host", "accept", "text"),
    [
        ("{app}", "*/*", "<p>Address, cookies"),
        ("localhost", "text/html", "<p>Address, cookies"),
        ("localhost", "application/json", '"code":"head_too_large"'),
        ("elsewhere", "*/*", "<p>Address, cookies"),
    ],
)
def test_a_longer_head_of_a_request_is_refused_with_its_limit(
    world: World, host: str, accept: str, text: str
) -> None:
    slug, app = world.publish_app()
    headers = {"Accept": accept, "Cookie": "b" * 2 * HEAD_MAX_BYTES}

    response = world.ask(host.format(app=world.host(slug)), headers=headers)

    assert response.status == 431
    assert text in response.body
    assert "64 KiB" in response.body
    assert app.heads == []


def test_the_probe_takes_heads_that_the_standard_library_refuses(world: World) -> None:
    many = [f"X-{number}: {'x' * 300}" for number in range(200)]
    slug, _ = world.publish_app(respond_with("many", "200 OK", *many))

    address = f"127.0.0.1:{world.settings.listen_port}"
    assert HttpProbe(address, world.settings.apps_domain).answers(slug, 5)
