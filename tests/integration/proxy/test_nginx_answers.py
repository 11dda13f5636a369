"""What an app's answer can do to a real nginx, and what of it reaches visitors."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterator

import pytest
from agent.serving.front import Front
from agent.serving.site import Serving, Site, Slot

from orchestrator.adapters.proxy.http_probe import HttpProbe
from orchestrator.contract.heads import HEAD_MAX_BYTES, HEAD_MAX_LINES, HEAD_ROOM_BYTES
from orchestrator.contract.health import Condition
from orchestrator.domain import ids
from orchestrator.domain.pool.routes import Route, build_table
from tests.integration.proxy.raw_http import read_all
from tests.integration.proxy.world import APPS_ADDRESS, Head, World, respond_with, running_world

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


@pytest.mark.parametrize("status", ["100 Continue", "103 Early Hints", "101 Switching Protocols"])
def test_an_answer_hidden_in_another_reaches_no_later_request(world: World, status: str) -> None:
    async def split(_: Head, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")

    slug = ids.new_slug()
    app = world.backends.serve(split, "127.0.0.1")
    site = Site(slot=Slot(folder="/nowhere", port=app.port))
    site.serving = Serving.PROCESS
    site.answer_to(slug)
    front = world.backends.run(Front(site).listen(APPS_ADDRESS, 0))
    port = front.sockets[0].getsockname()[1]
    world.proxy.publish(build_table([Route(slug=slug, address=APPS_ADDRESS, port=port)]))

    # As a tunnel does it: requests for several hosts over one connection.
    with world.connect() as tunnel:
        tunnel.sendall(f"GET / HTTP/1.1\r\nHost: {world.host(slug)}\r\n\r\n".encode())
        tunnel.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = read_all(tunnel)
    world.backends.run(close(front))

    assert "forged" not in received
    assert received.startswith("HTTP/1.1 502 " if "101" in status else "HTTP/1.1 200 ")
    assert received.endswith("api")


async def close(server: asyncio.Server) -> None:
    server.close()


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


@pytest.mark.parametrize("host", ["{app}", "localhost"])
def test_a_request_may_have_as_many_headers_as_refusals_say(world: World, host: str) -> None:
    slug, _ = world.publish_app()
    name = host.format(app=world.host(slug))

    def ask(lines: int, accept: str) -> tuple[int, str]:
        many = "a: b\r\n" * (lines - 2)
        head = f"GET /x HTTP/1.1\r\nHost: {name}\r\nAccept: {accept}\r\n{many}\r\n"
        with world.connect() as client:
            client.sendall(head.encode())
            answer = http.client.HTTPResponse(client)
            answer.begin()
            return answer.status, answer.read().decode()

    assert ask(HEAD_MAX_LINES, "*/*")[0] == 200
    # So many that nginx refuses them by their bytes too, if it doesn't count lines.
    for accept in ("text/html", "application/json"):
        status, body = ask(25 * HEAD_MAX_LINES, accept)
        assert (status, f"{HEAD_MAX_LINES:,} lines" in body) == (431, True)


def test_the_probe_takes_heads_that_the_standard_library_refuses(world: World) -> None:
    many = [f"X-{number}: {'x' * 300}" for number in range(200)]
    slug, _ = world.publish_app(respond_with("many", "200 OK", *many))

    address = f"127.0.0.1:{world.settings.listen_port}"
    probe = HttpProbe(address, world.settings.apps_domain)
    finding = asyncio.run(probe.walk(slug, patience_s=5))
    assert finding.condition is Condition.WELL
