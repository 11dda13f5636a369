"""What an app's answer can do to a real nginx, and what of it reaches visitors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
