"""What a real nginx logs of requests for apps, by setting, so that abuse can be traced."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from orchestrator.adapters.proxy.http_probe import HttpProbe
from orchestrator.adapters.proxy.route_links import endpoint
from orchestrator.contract.health import Condition
from orchestrator.domain import ids
from orchestrator.domain.logged_requests import LoggedRequests
from tests.integration.proxy.world import World, respond_with, running_world, wait_until

SECRET = "never-to-be-seen"
OFF, ERRORS, WRITES, ALL = LoggedRequests


def log_lines(world: World, count: int) -> list[dict[str, Any]]:
    """The first lines of the log, as soon as it has so many. nginx writes one after its answer."""

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in world.apps_log.read_text().splitlines()]

    wait_until(lambda: len(read()) >= count, f"{count} lines in the log")
    return read()


def make_requests(world: World) -> ids.Slug:
    """A read, a write and a name without a route; then a failure, which every setting logs.

    Before them comes a probe of ours, which none logs.
    """
    slug, _ = world.publish_app()
    control = endpoint("127.0.0.1", world.settings.control_port)
    finding = asyncio.run(HttpProbe(control, world.settings.apps_domain).walk(slug))
    assert finding.condition is Condition.WELL
    assert world.ask(world.host(slug), f"/?key={SECRET}").status == 200
    assert world.ask(world.host(slug), f"/{SECRET}", "POST", body=b"{}").status == 200
    assert world.ask(world.host("a" * 16)).status == 404
    slug, _ = world.publish_app(respond_with("no", "500 Internal Server Error"))
    assert world.ask(world.host(slug)).status == 500
    return slug


@pytest.mark.parametrize(
    ("level", "logged_requests"),
    [
        (ERRORS, [("GET", 404), ("GET", 500)]),
        (WRITES, [("POST", 200), ("GET", 404), ("GET", 500)]),
        (ALL, [("GET", 200), ("POST", 200), ("GET", 404), ("GET", 500)]),
    ],
)
def test_the_setting_says_which_requests_for_apps_are_logged(
    level: LoggedRequests, logged_requests: list[tuple[str, int]]
) -> None:
    with running_world(logged_requests=level) as world:
        make_requests(world)
        lines = log_lines(world, len(logged_requests))
        assert sorted((line["method"], line["status"]) for line in lines) == sorted(logged_requests)
        assert SECRET not in world.apps_log.read_text()


def test_nothing_is_logged_if_the_setting_is_off() -> None:
    with running_world(logged_requests=OFF) as world:
        make_requests(world)
        assert not world.apps_log.exists()


def test_a_line_names_the_address_the_app_and_the_outcome() -> None:
    with running_world(logged_requests=ERRORS, trusted_proxies=("127.0.0.1",)) as world:
        slug, _ = world.publish_app(respond_with("no", "503 Service Unavailable"))
        hostile = f"9.9.9.9\\x22, {SECRET}"
        for address in ("9.9.9.9", hostile):
            headers = {"X-Forwarded-For": address}
            assert world.ask(world.host(slug), headers=headers).status == 503
        line, _ = log_lines(world, 2)
        assert line.pop("timestamp")
        assert isinstance(line.pop("duration_s"), float)
        assert line == {
            "event": "app_request_finished",
            "address": "9.9.9.9",
            "slug": slug,
            "method": "GET",
            "status": 503,
        }


def test_a_client_does_not_choose_how_long_a_line_is() -> None:
    with running_world(logged_requests=ERRORS) as world:
        assert world.ask(world.host("a" * 16), "/" + "x" * 5000, "Q" * 900).status == 404
        (line,) = log_lines(world, 1)
        assert line["method"] == "-"
        assert len(world.apps_log.read_text()) < 250


def test_a_request_that_gets_an_error_page_is_logged_with_its_own_method() -> None:
    with running_world(logged_requests=ERRORS) as world:
        assert world.ask(world.host("a" * 16), "/x", "POST", body=b"{}").status == 404
        (line,) = log_lines(world, 1)
        assert (line["method"], line["slug"], line["status"]) == ("POST", "a" * 16, 404)


def test_the_log_goes_on_after_it_was_moved_away() -> None:
    with running_world(logged_requests=ERRORS) as world:
        make_requests(world)
        log_lines(world, 2)
        with world.apps_log.open("w"):
            pass  # as the supervisor truncates it
        world.ask(world.host("b" * 16))
        (line,) = log_lines(world, 1)
        assert line["slug"] == "b" * 16


def test_one_app_writes_so_many_lines_at_once_and_others_go_on() -> None:
    with running_world(logged_requests=ERRORS) as world, ThreadPoolExecutor(8) as pool:
        slug, _ = world.publish_app(respond_with("no", "500 Internal Server Error"))
        nobody = ["".join(random.choices("abcdef", k=16)) for _ in range(600)]
        for name in [*nobody, *[slug] * 600]:
            pool.submit(world.ask, world.host(name))
        pool.shutdown()
        wait_until(lambda: slug in world.apps_log.read_text(), "a line of the app")
        counts = Counter(line["slug"] == slug for line in log_lines(world, 1))
    for is_app in (True, False):
        assert 100 <= counts[is_app] < 600
