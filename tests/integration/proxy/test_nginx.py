"""Routing by a real nginx: what reaches the API, what reaches which app, and what people see."""

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
from orchestrator.domain import errors, ids
from orchestrator.domain.pool.routes import Route, table
from tests.integration.proxy.raw_http import read_all, read_until
from tests.integration.proxy.world import APPS_ADDRESS, Head, World, echo, hello, routes, world

NOBODY = 65534
HANDSHAKE = "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n"
MIB = 1024**2


@pytest.fixture(name="w")
def _world() -> Iterator[World]:
    with world() as made:
        yield made


def test_everything_that_is_no_app_reaches_the_api(w: World) -> None:
    for name in ("localhost", "127.0.0.1", "spawn.example.com", "apps.localhost"):
        host = f"{name}:{w.settings.listen_port}"

        assert w.ask(host, "/api/templates?x=1").body == "api"
        assert w.api.heads[-1].target == "/api/templates?x=1"
        assert w.api.heads[-1].headers["host"] == host


def test_the_origin_of_a_request_is_told_by_us_not_by_the_client(w: World) -> None:
    slug, app = w.app()
    claimed = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "x"}

    for host, backend in (("localhost", w.api), (w.host(slug), app)):
        w.ask(host, headers=claimed)

        got = backend.heads[-1].headers
        assert got["x-forwarded-for"] == "127.0.0.1"
        assert got["x-forwarded-proto"] == "http"
        assert got["x-forwarded-host"] == host


def test_a_trusted_proxy_before_us_tells_the_origin() -> None:
    with world(trusted_proxies=("127.0.0.1",)) as w:
        w.ask("localhost", headers={"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "https"})

        assert w.api.heads[-1].headers["x-forwarded-for"] == "9.9.9.9"
        assert w.api.heads[-1].headers["x-forwarded-proto"] == "https"


def test_an_api_that_is_down_is_told_as_a_problem_to_retry(w: World) -> None:
    w.api.close()

    answer = w.ask("localhost", "/api/sessions", "POST", body=b"{}")

    assert answer.status == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert json.loads(answer.body)["code"] == "api_unavailable"


def test_the_apis_own_errors_pass_unchanged(w: World) -> None:
    w.api.open(hello("busy", "503 Service Unavailable", "Retry-After: 7"))

    answer = w.ask("localhost")

    assert (answer.status, answer.body, answer.headers["retry-after"]) == (503, "busy", "7")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_too_large_is_refused_before_it_reaches_the_api(w: World, chunked: bool) -> None:
    body = [bytes(MIB), b"x"] if chunked else bytes(MIB + 1)

    answer = w.ask("localhost", "/api/sessions", "POST", body=body, encode_chunked=chunked)

    assert answer.status == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.body)["code"] == "body_too_large"
    assert w.api.heads == []


def test_events_reach_the_client_before_the_response_ends(w: World) -> None:
    received = asyncio.Event()

    async def stream(_: Head, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await received.wait()
        writer.write(b"data: 2\n\n")

    async def go_on() -> None:
        received.set()

    w.api.open(stream)
    slug, _ = w.app(stream)
    for host, target in (("localhost", "/api/sessions/ses_x/events"), (w.host(slug), "/live")):
        received.clear()
        with w.connect() as client:
            client.sendall(f"GET {target} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            read_until(client, b"data: 1\n\n")
            w.backends.run(go_on())
            assert read_all(client) == "data: 2\n\n"


def test_an_app_is_reached_by_its_name_and_sees_it(w: World) -> None:
    slug, app = w.app()

    answer = w.ask(w.host(slug), "/a%2Fb//c?d=1")

    assert (answer.status, answer.body) == (200, slug)
    assert app.heads[-1].target == "/a%2Fb//c?d=1"
    assert app.heads[-1].headers["host"] == w.host(slug)
    assert app.heads[-1].headers["connection"] == "close"
    assert "upgrade" not in app.heads[-1].headers


def test_a_name_without_a_route_shows_the_page_that_says_so(w: World) -> None:
    w.app()

    for label in ("a" * 16, "a" * 15, "a" * 15 + "1", "www", "x.y"):
        for method in ("GET", "POST"):
            answer = w.ask(w.host(label), "/some/path", method)

            assert answer.status == 404
            assert answer.headers["content-type"] == "text/html"
            assert answer.headers["cache-control"] == "no-store"
            assert "There is no app here" in answer.body
    assert w.api.heads == []


def test_a_sandbox_that_refuses_shows_the_page_that_says_so(w: World) -> None:
    slug, app = w.app()
    app.close()

    answer = w.ask(w.host(slug))

    assert answer.status == 502
    assert answer.headers["content-type"] == "text/html"
    assert "answering</h1>" in answer.body


def test_an_apps_own_errors_and_pages_pass_unchanged(w: World) -> None:
    slug, _ = w.app(hello("mine", "502 Bad Gateway", "X-Own: 1"))

    answer = w.ask(w.host(slug), "/pages/404.html")

    assert (answer.status, answer.body, answer.headers["x-own"]) == (502, "mine", "1")
    assert "content-security-policy" not in answer.headers
    assert "x-content-type-options" not in answer.headers


def test_an_app_takes_larger_bodies_than_the_api_but_not_any(w: World) -> None:
    slug, app = w.app()

    assert w.ask(w.host(slug), "/upload", "POST", body=bytes(2 * MIB)).status == 200
    # Nothing is sent: the head alone is refused.
    too_large = {"Content-Length": str(10 * MIB + 1)}
    assert w.ask(w.host(slug), "/upload", "POST", headers=too_large).status == 413
    assert len(app.heads) == 1


def test_websockets_pass_bytes_both_ways(w: World) -> None:
    w.api.open(echo)
    slug, _ = w.app(echo)
    for host in ("localhost", w.host(slug)):
        with w.connect() as client:
            client.sendall(HANDSHAKE.format("/ws/session/ses_x", host).encode())
            assert read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 101")
            for word in (b"ping", b"pong"):
                client.sendall(word)
                assert read_until(client, word) == word


def test_a_request_line_cant_smuggle_a_foreign_host_to_an_app(w: World) -> None:
    slug, app = w.app()
    with w.connect() as client:
        target = f"http://{slug}.apps.localhost/"
        client.sendall(f"GET {target} HTTP/1.0\r\nHost: {'b' * 16}.apps.localhost\r\n\r\n".encode())
        assert read_all(client).endswith(slug)

    assert app.heads[-1].label == slug


def test_what_the_control_listener_says_cant_be_had_from_outside(w: World) -> None:
    slug, _ = w.app()

    for host in ("localhost", f"127.0.0.1:{w.settings.control_port}", "_"):
        assert w.ask(host, "/routes").body == "api"
    assert w.ask(w.host(slug), "/routes").body == slug


def test_nothing_tells_the_version_or_logs_requests(w: World) -> None:
    answer = w.ask(w.host("a" * 16))

    assert answer.headers["server"] == "nginx"
    assert not list(w.settings.folder.rglob("*access*"))


def test_two_thousand_routes_are_served(w: World) -> None:
    slug, app = w.app()
    others = (Route(slug=ids.new_slug(), address="10.0.0.2", port=10_000 + n) for n in range(1_999))
    mine = Route(slug=slug, address=APPS_ADDRESS, port=app.port)

    w.proxy.publish(table([mine, *others]))

    assert w.ask(w.host(slug)).body == slug
    assert "could not build" not in (w.settings.folder / "error.log").read_text()


def test_the_probe_tells_an_app_that_answers_from_one_that_does_not(w: World) -> None:
    probe = HttpProbe(f"127.0.0.1:{w.settings.listen_port}", w.settings.apps_domain)
    slug, app = w.app(hello("moved", "302 Found", "Location: /login"))

    assert probe.answers(slug, 5)
    app.close()
    assert not probe.answers(slug, 5)
    app.open(hello("starting", "503 Service Unavailable"))
    assert not probe.answers(slug, 5)
    assert not probe.answers(ids.new_slug(), 5)
    w.kill()
    assert not probe.answers(slug, 5)


def test_the_probe_gives_up_on_an_app_that_never_answers(w: World) -> None:
    async def never(_: Head, __: asyncio.StreamReader, ___: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    slug, app = w.app(never)
    probe = HttpProbe(f"127.0.0.1:{w.settings.listen_port}", w.settings.apps_domain)

    assert not probe.answers(slug, 0.2)
    assert app.heads[-1].method == "GET"


def test_nginx_and_its_publisher_run_as_an_ordinary_user() -> None:
    with world(started=False) as w:
        # The checkout may be where only its owner can read.
        templates = w.settings.folder / "templates"
        shutil.copytree(w.settings.templates, templates)
        w.proxy = nginx.NginxProxy(replace(w.settings, templates=templates))
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", w.settings.folder], check=True)
        slug = ids.new_slug()
        app = w.backends.serve(hello(slug))
        with as_nobody():
            w.start()
            w.proxy.publish(routes({slug: app}))

        assert w.ask(w.host(slug)).body == slug
        assert w.ask("localhost").body == "api"


def test_workers_that_cant_read_the_folder_are_told_from_a_slow_reload() -> None:
    with world(reload_deadline_s=0.5) as w:
        if os.geteuid() != 0:
            pytest.skip("a worker that is us reads what we read")
        (w.settings.folder / "generations").chmod(0o700)

        with pytest.raises(errors.ProxyUnavailable, match="able to read"):
            w.app()


def test_a_missing_nginx_is_told_before_anything_starts(tmp_path: Path) -> None:
    with (
        pytest.raises(errors.ProxyUnavailable, match="install nginx"),
        world(started=False, binary=f"{tmp_path}/nginx"),
    ):
        pass


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's rights, if this process has them."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
