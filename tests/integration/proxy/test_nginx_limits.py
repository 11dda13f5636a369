"""What a real nginx lets one address take of page and apps, and how it refuses more."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import select
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.adapters.proxy.client_limits import ClientLimits
from orchestrator.adapters.proxy.http_probe import HttpProbe
from orchestrator.adapters.proxy.route_links import endpoint
from orchestrator.contract.health import Condition
from orchestrator.domain import ids
from orchestrator.domain.logged_requests import LoggedRequests
from tests.integration.proxy.world import (
    Backend,
    Head,
    Response,
    World,
    open_files,
    respond_with,
    routes,
    running_world,
    wait_until,
)

KEY = {"Authorization": "Bearer a-key"}
LONG_BYTES = 20 * 1024**2
"""More than the sockets hold."""
POLL = "/api/status/x?wait=60"
PROXY = "127.0.0.1"


@contextlib.contextmanager
def world_with(
    logged_requests: LoggedRequests = LoggedRequests.OFF, **limits: int
) -> Iterator[World]:
    """Whoever asks says from which address."""
    with running_world(
        trusted_proxies=(PROXY,), logged_requests=logged_requests, limits=ClientLimits(**limits)
    ) as world:
        world.api.open(wait_if_asked)
        yield world


def ask_from(world: World, address: str, target: str = "/", **headers: str) -> Response:
    return world.ask("localhost", target, headers={"X-Forwarded-For": address, **headers})


def start_from(world: World, address: str, target: str, **headers: str) -> Response:
    headers = {"X-Forwarded-For": address, "Content-Type": "application/json", **headers}
    return world.ask("localhost", target, "POST", body=b"{}", headers=headers)


@contextlib.contextmanager
def waiting(
    world: World, backend: Backend, count: int, *addresses: str, host: str = "localhost"
) -> Iterator[None]:
    """So many requests from these addresses, in turn, for which the backend doesn't answer."""
    with contextlib.ExitStack() as stack:
        before = len(backend.heads)
        for number in range(count):
            client = stack.enter_context(world.connect())
            address = addresses[number % len(addresses)]
            head = f"GET {POLL} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {address}\r\n\r\n"
            client.sendall(head.encode())
        wait_until(lambda: len(backend.heads) == before + count, "the backend to be asked")
        yield


async def wait_if_asked(
    head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    if "wait=" in head.target:
        await reader.read()  # until the client goes
    else:
        await respond_with("now")(head, reader, writer)


def problem_of(response: Response) -> tuple[int, str, str]:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "1"
    problem = json.loads(response.body)
    assert problem["setting"] in problem["detail"]
    return response.status, problem["code"], problem["setting"]


def test_requests_beyond_the_rate_are_refused_before_the_api_is_asked() -> None:
    with world_with(requests_per_address=1) as world, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask_from(world, "9.9.9.9", "/api/x"), range(200)))
        count = Counter(answer.status for answer in answers)
        assert 11 <= count[200] < 200, count  # ten seconds' worth at once
        assert len(world.api.heads) == count[200]
        refused = next(answer for answer in answers if answer.status == 429)
        assert problem_of(refused) == (429, "too_many_requests", "SPAWN_REQUESTS_PER_ADDRESS")
        assert ask_from(world, "9.9.9.8", "/api/x").status == 200


def test_a_page_and_its_files_fit_many_times_into_the_rate() -> None:
    with (
        world_with(logged_requests=LoggedRequests.ALL) as world,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = pool.map(lambda _: ask_from(world, "9.9.9.9", "/static/page.js"), range(900))
        assert {answer.status for answer in answers} == {200}
        assert not world.apps_log.stat().st_size


def test_a_browser_gets_a_page_that_names_the_settings() -> None:
    with world_with(connections_per_address=1) as world, waiting(world, world.api, 1, "9.9.9.9"):
        page = ask_from(world, "9.9.9.9", Accept="text/html,application/xhtml+xml")
    assert (page.status, page.headers["content-type"]) == (429, "text/html")
    assert page.headers["retry-after"] == "1"
    assert "SPAWN_REQUESTS_PER_ADDRESS" in page.body


@pytest.mark.parametrize("target", [POLL, "/api/st%61tus/x?w%61it=60", "//api/./status/x?wait=6"])
def test_visitors_of_one_address_wait_within_a_limit(target: str) -> None:
    with world_with(polls_per_address=2) as world, waiting(world, world.api, 2, "9.9.9.9"):
        refused = ask_from(world, "9.9.9.9", target)
        assert problem_of(refused) == (429, "too_many_polls", "SPAWN_POLLS_PER_ADDRESS")
        assert ask_from(world, "9.9.9.9", "/api/sessions").status == 200
        assert ask_from(world, "9.9.9.9", "/api/status/x", **KEY).status == 200
        assert ask_from(world, "9.9.9.8", "/api/status/x").status == 200


def test_a_house_with_ipv6_is_one_address() -> None:
    with world_with(polls_per_address=2) as world:
        with waiting(world, world.api, 2, "2001:db8:0:1::1", "2001:db8:0:1:ffff::2"):
            assert ask_from(world, "2001:db8:0:1:a:b:c:d", POLL).status == 429
            assert ask_from(world, "2001:db8:0:2::1", "/api/status/x").status == 200
        with waiting(world, world.api, 2, "::ffff:9.9.9.9"):
            assert ask_from(world, "9.9.9.9", POLL).status == 429
            assert ask_from(world, "::ffff:9.9.9.8", "/api/status/x").status == 200


def test_a_publish_forgets_nothing() -> None:
    with world_with(polls_per_address=2) as world, waiting(world, world.api, 2, "9.9.9.9"):
        world.publish_app()
        assert ask_from(world, "9.9.9.9", POLL).status == 429


@pytest.mark.parametrize("target", ["/api/sessions", "/api/s%65ssions", "//api/./sessions?x=1"])
def test_visitors_of_one_address_start_apps_at_a_rate(target: str) -> None:
    with world_with(starts_per_address=1) as world:
        answers = [start_from(world, "9.9.9.9", target) for _ in range(8)]
        assert [answer.status for answer in answers] == [200] * 6 + [429] * 2
        problem = json.loads(answers[-1].body)
        assert (problem["code"], problem["setting"]) == (
            "too_many_starts",
            "SPAWN_STARTS_PER_ADDRESS",
        )
        assert answers[-1].headers["retry-after"] == "60"
        again = start_from(world, "9.9.9.9", target, **{"Idempotency-Key": "a"})
        assert again.status == 429
        assert start_from(world, "9.9.9.9", target, **KEY).status == 200
        assert start_from(world, "9.9.9.8", target).status == 200
        assert ask_from(world, "9.9.9.9", target).status == 200, "a list is no start"


def test_open_requests_to_the_page_have_a_limit_whoever_makes_them() -> None:
    with world_with(connections_per_address=2) as world, waiting(world, world.api, 2, "9.9.9.9"):
        refused = ask_from(world, "9.9.9.9", "/api/status/x", **KEY)
        code, setting = "too_many_connections", "SPAWN_CONNECTIONS_PER_ADDRESS"
        assert problem_of(refused) == (429, code, setting)
        slug, _ = world.publish_app()
        assert ask_app(world, slug, "9.9.9.9").status == 200


@pytest.mark.parametrize(
    "head",
    [
        "POST /api/sessions HTTP/1.1\r\nContent-Length: 1000",
        "GET /api/sessions HTTP/1.1\r\nContent-Length: 1000",
        "PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked",
        "GET /api/sessions/x/bundle?wait=1 HTTP/1.1",
        "GET /openapi.json?wait=1 HTTP/1.1",
    ],
)
def test_bodies_on_their_way_have_a_limit(head: str) -> None:
    text = f"{head}\r\nHost: localhost\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"
    with world_with(transfers_per_address=1) as world, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(world.connect()) for _ in range(2)]
        for client in clients:
            client.sendall(text.encode())
        (answered,), _, _ = select.select(clients, [], [], 10)  # the other one is on its way
        assert answered.recv(100).startswith(b"HTTP/1.1 429 ")
        refused = world.ask(
            "localhost", "/x", "POST", body=b"{}", headers={"X-Forwarded-For": "9.9.9.9"}
        )
        expected = (429, "too_many_transfers", "SPAWN_TRANSFERS_PER_ADDRESS")
        assert problem_of(refused) == expected
        assert ask_from(world, "9.9.9.9", "/api/sessions").status == 200
        assert ask_from(world, "9.9.9.9", "/api/sessions", **{"Content-Length": "0"}).status == 200
        assert ask_from(world, "9.9.9.8", "/api/sessions/x/bundle").status == 200


def test_lists_that_are_not_taken_fill_no_disk() -> None:
    with world_with(reads_per_address=2) as world, contextlib.ExitStack() as stack:
        world.api.open(respond_with("x" * LONG_BYTES))
        clients = [stack.enter_context(world.connect()) for _ in range(5)]
        for client in clients:
            target = "/api/sessions/x/messages?x=1"
            head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"
            client.sendall(head.encode())
        statuses = Counter(client.recv(12, socket.MSG_WAITALL) for client in clients)
        assert statuses == {b"HTTP/1.1 200": 2, b"HTTP/1.1 429": 3}
        folder = world.settings.folder / "temp"
        wait_until(lambda: len(open_files(folder)) == 2, "the lists to be on the disk")
        refused = ask_from(world, "9.9.9.9", "/api/sessions")
        assert problem_of(refused) == (429, "too_many_reads", "SPAWN_READS_PER_ADDRESS")
        world.api.open(respond_with("now"))
        assert ask_from(world, "9.9.9.9", "/api/status/x").status == 200
        assert ask_from(world, "9.9.9.9", "/static/page.js").status == 200
        assert ask_from(world, "9.9.9.8", "/api/sessions").status == 200


def test_open_requests_of_one_address_to_all_apps_have_a_limit() -> None:
    with world_with(connections_per_address=2) as world:
        slug, app = world.publish_app(wait_if_asked)
        with waiting(world, app, 2, "9.9.9.9", host=world.host(slug)):
            assert ask_app(world, slug, "9.9.9.9").status == 429
            assert ask_app(world, slug, "9.9.9.8").status == 200
            assert ask_from(world, "9.9.9.9").status == 200


def test_one_app_takes_only_so_many_connections_and_says_so() -> None:
    with world_with(connections_per_app=2) as world:
        slug, app = world.publish_app(wait_if_asked)
        with waiting(world, app, 2, "9.9.9.9", "9.9.9.8", host=world.host(slug)):
            refused = ask_app(world, slug, "9.9.9.7")
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert "SPAWN_CONNECTIONS_PER_APP" in refused.body
            program = world.ask(world.host(slug), headers={"Accept": "application/json"})
            assert (program.status, program.headers["retry-after"]) == (429, "1")
            assert json.loads(program.body)["code"] == "too_many_connections"
            assert world.ask("localhost").status == 200


def test_one_address_leaves_an_app_to_its_other_visitors() -> None:
    with world_with(app_connections_per_address=2, connections_per_app=4) as world:
        slug, other_slug = ids.new_slug(), ids.new_slug()
        app, other = world.backends.serve(wait_if_asked), world.backends.serve(wait_if_asked)
        world.proxy.publish(routes({slug: app, other_slug: other}))
        with waiting(world, app, 2, "9.9.9.9", host=world.host(slug)):
            refused = ask_app(world, slug, "9.9.9.9")
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert "SPAWN_APP_CONNECTIONS_PER_ADDRESS" in refused.body
            assert ask_app(world, slug, "9.9.9.8").status == 200
            assert ask_app(world, other_slug, "9.9.9.9").status == 200
        with waiting(world, app, 2, "2001:db8:0:1::1", "2001:db8:0:1::2", host=world.host(slug)):
            assert ask_app(world, slug, "2001:db8:0:1::3").status == 429
            assert ask_app(world, slug, "2001:db8:0:2::1").status == 200


def test_our_own_probes_are_never_refused() -> None:
    """They come from loopback, and so do all visitors of a tunnel on this machine."""
    with world_with(
        connections_per_address=2, app_connections_per_address=2, connections_per_app=2
    ) as world:
        slug, app = world.publish_app(wait_if_asked)
        with waiting(world, app, 2, PROXY, host=world.host(slug)):
            assert ask_app(world, slug, PROXY).status == 429
            own = endpoint("127.0.0.1", world.settings.control_port)
            finding = asyncio.run(HttpProbe(own, world.settings.apps_domain).walk(slug))
            assert finding.condition is Condition.WELL
        with waiting(world, world.api, 2, PROXY):
            assert ask_from(world, PROXY, "/health").status == 429
            with contextlib.closing(http.client.HTTPConnection(own, timeout=10)) as connection:
                connection.request("GET", "/health")
                assert connection.getresponse().status == 200
        assert world.api.heads[-1].headers["host"] == "localhost"


def test_some_of_the_requests_that_are_refused_are_logged_with_their_address() -> None:
    with (
        world_with(connections_per_address=1, logged_requests=LoggedRequests.ERRORS) as world,
        ThreadPoolExecutor(8) as pool,
    ):
        refused = 0
        with waiting(world, world.api, 1, "9.9.9.9"):
            while not world.apps_log.stat().st_size:  # one of a hundred
                answers = pool.map(lambda _: ask_from(world, "9.9.9.9", "/x"), range(50))
                assert 200 not in {answer.status for answer in answers}
                refused += 50
        lines = world.apps_log.read_text().splitlines()
        assert len(lines) < refused / 2
        line = json.loads(lines[0])
    assert line.pop("timestamp")
    assert line["event"] == "page_request_refused"
    assert line["address"] == "9.9.9.9"
    assert line["excess"] in {"reads", "requests"}


def ask_app(world: World, slug: str, address: str) -> Response:
    return world.ask(world.host(slug), headers={"X-Forwarded-For": address})
