"""Routing by a real nginx: what reaches the API, what reaches which app, and what users see."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.proxy import nginx
from orchestrator.adapters.proxy.http_probe import HttpProbe
from orchestrator.contract.health import Condition, Finding
from orchestrator.domain import errors, ids
from orchestrator.domain.pool.routes import Route, build_table
from tests.integration.proxy.raw_http import read_all, read_until
from tests.integration.proxy.world import (
    APPS_ADDRESS,
    Head,
    World,
    echo,
    respond_with,
    routes,
    running_world,
)

NOBODY = 65534
HANDSHAKE = "GET /live HTTP/1.1\r\nHost: {}\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n"
MIB = 1024**2


@pytest.fixture(name="world")
def _world() -> Iterator[World]:
    with running_world() as world:
        yield world


def test_the_origin_of_a_request_comes_from_us_and_not_from_the_client(world: World) -> None:
    slug, app = world.publish_app()
    forged_headers = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "x",
    }

    for host, backend in (("localhost", world.api), (world.host(slug), app)):
        world.ask(host, headers=forged_headers)

        headers = backend.heads[-1].headers
        assert headers["x-forwarded-for"] == "127.0.0.1"
        assert headers["x-forwarded-proto"] == "http"
        assert headers["x-forwarded-host"] == host


def test_a_trusted_proxy_in_front_may_set_the_origin() -> None:
    with running_world(trusted_proxies=("127.0.0.1",)) as world:
        world.ask("localhost", headers={"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "https"})

        assert world.api.heads[-1].headers["x-forwarded-for"] == "9.9.9.9"
        assert world.api.heads[-1].headers["x-forwarded-proto"] == "https"


def test_an_api_that_is_down_becomes_a_problem_to_retry(world: World) -> None:
    world.api.close()

    response = world.ask("localhost", "/api/sessions", "POST", body=b"{}")

    assert response.status == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "1"
    assert json.loads(response.body)["code"] == "api_unavailable"


def test_the_apis_own_errors_pass_unchanged(world: World) -> None:
    world.api.open(respond_with("busy", "503 Service Unavailable", "Retry-After: 7"))

    response = world.ask("localhost")

    assert (response.status, response.body, response.headers["retry-after"]) == (503, "busy", "7")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_too_large_is_refused_before_it_reaches_the_api(world: World, chunked: bool) -> None:
    body = [bytes(MIB), b"x"] if chunked else bytes(MIB + 1)

    response = world.ask("localhost", "/api/sessions", "POST", body=body, encode_chunked=chunked)

    assert response.status == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(response.body)["code"] == "body_too_large"
    assert world.api.heads == []


@pytest.mark.parametrize("header", [b"", b"X-Accel-Buffering: yes\r\n"])
def test_a_streamed_response_of_an_app_reaches_the_client_before_it_ends(
    world: World, header: bytes
) -> None:
    received = asyncio.Event()

    async def stream(_: Head, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + header)
        writer.write(b"\r\ndata: 1\n\n")
        await received.wait()
        writer.write(b"data: 2\n\n")

    async def confirm() -> None:
        received.set()

    slug, _ = world.publish_app(stream)
    with world.connect() as client:
        client.sendall(f"GET /live HTTP/1.0\r\nHost: {world.host(slug)}\r\n\r\n".encode())
        read_until(client, b"data: 1\n\n")
        world.backends.run(confirm())
        assert read_all(client) == "data: 2\n\n"


def test_an_app_is_reached_by_its_name_and_sees_it(world: World) -> None:
    slug, app = world.publish_app()

    response = world.ask(world.host(slug), "/a%2Fb//c?d=1")

    assert (response.status, response.body) == (200, slug)
    assert app.heads[-1].target == "/a%2Fb//c?d=1"
    assert app.heads[-1].headers["host"] == world.host(slug)
    assert app.heads[-1].headers["connection"] == "close"
    assert "upgrade" not in app.heads[-1].headers


def test_a_name_without_a_route_shows_the_404_page(world: World) -> None:
    world.publish_app()

    for label in ("a" * 16, "a" * 15, "a" * 15 + "1", "www", "x.y"):
        for method in ("GET", "POST"):
            response = world.ask(world.host(label), "/some/path", method)

            assert response.status == 404
            assert response.headers["content-type"] == "text/html"
            assert response.headers["cache-control"] == "no-store"
            assert "There is no app here" in response.body
    assert world.api.heads == []


def test_a_sandbox_that_refuses_connections_shows_the_502_page(world: World) -> None:
    slug, app = world.publish_app()
    app.close()

    response = world.ask(world.host(slug))

    assert response.status == 502
    assert response.headers["content-type"] == "text/html"
    assert "answering</h1>" in response.body


def test_an_apps_own_errors_and_pages_pass_unchanged(world: World) -> None:
    slug, _ = world.publish_app(respond_with("own page", "502 Bad Gateway", "X-Own: 1"))

    response = world.ask(world.host(slug), "/pages/404.html")

    assert (response.status, response.body, response.headers["x-own"]) == (502, "own page", "1")
    assert "content-security-policy" not in response.headers
    assert "x-content-type-options" not in response.headers


def test_an_app_accepts_larger_bodies_than_the_api_up_to_a_limit(world: World) -> None:
    slug, app = world.publish_app()

    assert world.ask(world.host(slug), "/upload", "POST", body=bytes(2 * MIB)).status == 200
    # nginx refuses by the head alone: no body is sent.
    too_large = {"Content-Length": str(50 * MIB + 1)}
    assert world.ask(world.host(slug), "/upload", "POST", headers=too_large).status == 413
    assert len(app.heads) == 1


def test_websockets_of_an_app_pass_bytes_both_ways(world: World) -> None:
    slug, _ = world.publish_app(echo)
    with world.connect() as client:
        client.sendall(HANDSHAKE.format(world.host(slug)).encode())
        assert read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 101")
        for word in (b"ping", b"pong"):
            client.sendall(word)
            assert read_until(client, word) == word


def test_an_app_never_sees_a_host_header_that_contradicts_the_request_line(world: World) -> None:
    slug, app = world.publish_app()
    with world.connect() as client:
        target = f"http://{slug}.apps.localhost/"
        client.sendall(f"GET {target} HTTP/1.0\r\nHost: {'b' * 16}.apps.localhost\r\n\r\n".encode())
        assert read_all(client).endswith(slug)

    assert app.heads[-1].label == slug


def test_the_control_listener_cant_be_reached_from_outside(world: World) -> None:
    slug, _ = world.publish_app()

    for host in ("localhost", f"127.0.0.1:{world.settings.control_port}"):
        assert world.ask(host, "/routes").body == "api"
    assert world.ask("_", "/routes").status == 421
    assert world.ask(world.host(slug), "/routes").body == slug


def test_nginx_neither_shows_its_version_nor_logs_requests(world: World) -> None:
    response = world.ask(world.host("a" * 16))

    assert response.headers["server"] == "nginx"
    assert not world.apps_log.exists()


def test_two_thousand_routes_are_served(world: World) -> None:
    slug, app = world.publish_app()
    others = (Route(slug=ids.new_slug(), address="10.0.0.2", port=10_000 + n) for n in range(1_999))
    app_route = Route(slug=slug, address=APPS_ADDRESS, port=app.port)

    world.proxy.publish(build_table([app_route, *others]))

    assert world.ask(world.host(slug)).body == slug
    assert "could not build" not in (world.settings.folder / "error.log").read_text()


def test_the_probe_tells_an_app_that_is_unwell_from_one_that_we_cant_reach(world: World) -> None:
    probe = HttpProbe(f"127.0.0.1:{world.settings.listen_port}", world.settings.apps_domain)
    slug, app = world.publish_app(
        respond_with("moved", "302 Found", "Location: //elsewhere.example")
    )

    assert asyncio.run(probe.walk(slug)).condition is Condition.WELL
    app.open(respond_with("starting", "503 Service Unavailable"))
    assert asyncio.run(probe.walk(slug)).condition is Condition.UNWELL
    app.close()
    assert asyncio.run(probe.walk(slug)).condition is Condition.UNREACHED
    assert asyncio.run(probe.walk(ids.new_slug())).condition is Condition.UNREACHED
    world.kill()
    assert asyncio.run(probe.walk(slug)).condition is Condition.UNREACHED


def test_the_probe_opens_an_app_as_a_browser_does_and_follows_it(world: World) -> None:
    async def login_first(
        head: Head, _: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        where = "" if head.target == "/login?next=/" else "Location: /login?next=/\r\n"
        status = "302 Found" if where else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\n{where}Content-Length: 2\r\n\r\nHi".encode())

    slug, app = world.publish_app(login_first)
    port = world.settings.listen_port
    control = f"127.0.0.1:{world.settings.control_port}"
    finding = asyncio.run(HttpProbe(control, world.settings.apps_domain, port).walk(slug, "secret"))

    assert finding == Finding(condition=Condition.WELL, requests=2)
    assert [head.target for head in app.heads] == ["/", "/login?next=/"]
    headers = app.heads[-1].headers
    assert headers["host"] == world.host(slug)
    assert headers["accept"].startswith("text/html")
    assert headers["accept-encoding"] == "gzip, deflate"
    assert headers["sec-fetch-mode"] == "navigate"
    assert headers["user-agent"].startswith("Mozilla/5.0")
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-spawn-trial"] == "secret"


def test_the_probe_gives_up_on_an_app_that_never_answers(world: World) -> None:
    async def never(_: Head, __: asyncio.StreamReader, ___: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    slug, app = world.publish_app(never)
    probe = HttpProbe(f"127.0.0.1:{world.settings.listen_port}", world.settings.apps_domain)

    finding = asyncio.run(probe.walk(slug, patience_s=0.2))
    assert (finding.condition, finding.problem) == (
        Condition.SILENT,
        "GET / has no answer after 0.2 s.",
    )
    assert app.heads[-1].method == "GET"


def test_nginx_and_its_publisher_run_as_an_ordinary_user() -> None:
    with running_world(started=False) as world:
        # Only the owner may be able to read the checkout.
        templates = world.settings.folder / "templates"
        shutil.copytree(world.settings.templates, templates)
        world.proxy = nginx.NginxProxy(replace(world.settings, templates=templates))
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", world.settings.folder], check=True)
        slug = ids.new_slug()
        app = world.backends.serve(respond_with(slug))
        with as_nobody():
            world.start()
            world.proxy.publish(routes({slug: app}))

        assert world.ask(world.host(slug)).body == slug
        assert world.ask("localhost").body == "api"


def test_workers_that_cant_read_the_routes_are_not_reported_as_slow() -> None:
    with running_world(publish_deadline_s=0.5) as world:
        if os.geteuid() != 0:
            pytest.skip("without root, workers run as the same user and can read the folder")
        (world.settings.folder / "routes").chmod(0o700)

        with pytest.raises(errors.ProxyUnavailable, match="able to read"):
            world.publish_app()


def test_a_missing_nginx_raises_before_anything_starts(tmp_path: Path) -> None:
    with (
        pytest.raises(errors.ProxyUnavailable, match="install nginx"),
        running_world(started=False, binary=f"{tmp_path}/nginx"),
    ):
        pass


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Drop root's privileges in this block, if this process has them."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
