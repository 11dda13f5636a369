"""What is logged of requests, by setting, so that abuse can be traced; and what never is."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from orchestrator.domain.logged_requests import LoggedRequests
from orchestrator.entrypoints.api.access_log import LINES_PER_S, AccessLog, LineBudget
from tests.unit.entrypoints.api.conftest import serving
from tests.unit.services.world import World

SECRET = "spk_never-to-be-seen"


def lines(logged: list[Any]) -> list[Any]:
    return [line for line in logged if line["event"] == "request_finished"]


def make_requests(client: TestClient) -> list[int]:
    """A read, a write and a refusal: their statuses."""
    return [
        client.get("/api/templates").status_code,
        client.post("/api/sessions", json={"template": "todo"}).status_code,
        client.get("/api/status/ses_x").status_code,
    ]


@pytest.mark.parametrize(
    ("level", "logged_statuses"),
    [("off", []), ("errors", [404]), ("writes", [202, 404]), ("all", [200, 202, 404])],
)
def test_the_setting_says_which_requests_are_logged(
    world: World, tmp_path: Path, level: str, logged_statuses: list[int]
) -> None:
    with serving(world, tmp_path, access_log=level) as client, capture_logs() as logged:
        assert make_requests(client) == [200, 202, 404]
    assert [line["status"] for line in lines(logged)] == logged_statuses


def test_by_default_what_changes_something_and_what_fails_is_logged(client: TestClient) -> None:
    with capture_logs() as logged:
        make_requests(client)
    assert [line["status"] for line in lines(logged)] == [202, 404]


def test_a_line_says_who_did_what_and_how_it_ended(client: TestClient) -> None:
    with capture_logs() as logged:
        answer = client.post("/api/sessions?x=1", json={"template": "todo"})
    (line,) = lines(logged)
    user_id = line.pop("user")
    assert user_id.startswith("usr_")
    assert isinstance(line.pop("duration_ms"), float)
    assert line == {
        "event": "request_finished",
        "log_level": "info",
        "request": answer.headers["x-request-id"],
        "method": "POST",
        "path": "/api/sessions",
        "status": 202,
        "address": "testclient",
    }
    with capture_logs() as logged:
        client.delete(f"/api/sessions/{answer.json()['session_id']}")
    assert lines(logged)[0]["user"] == user_id


def test_whoever_is_refused_before_being_known_is_logged_by_address(client: TestClient) -> None:
    requests = {
        421: {"headers": {"Host": "evil.example"}},
        403: {"headers": {"Origin": "http://evil.example"}},
        401: {"headers": {"Authorization": "Bearer spk_wrong"}},
        413: {"content": b"a" * (1024**2 + 1)},
    }
    for status, options in requests.items():
        with capture_logs() as logged:
            client.post("/api/sessions", **options)  # type: ignore[arg-type]
        (line,) = lines(logged)
        assert (line["status"], line["user"], line["address"]) == (status, "-", "testclient")


def test_no_key_cookie_prompt_or_query_is_logged(client: TestClient) -> None:
    with capture_logs() as logged:
        client.post(
            f"/api/sessions?key={SECRET}",
            json={"prompt": SECRET},
            headers={"Authorization": f"Bearer {SECRET}", "Cookie": f"spawn_user={SECRET}"},
        )
        client.get(f"/api/sessions?cursor={SECRET}", headers={"Cookie": f"spawn_user={SECRET}"})
    assert lines(logged)
    assert SECRET not in json.dumps(logged)


def test_a_long_path_is_cut(client: TestClient) -> None:
    with capture_logs() as logged:
        client.get("/" + "a" * 60_000)
    assert len(lines(logged)[0]["path"]) == 200


def test_a_request_that_ends_in_an_error_of_ours_is_logged_as_500() -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    with capture_logs() as logged, pytest.raises(RuntimeError):
        asyncio.run(AccessLog(broken, logs=LoggedRequests.ERRORS)(scope(), no_body, nowhere))
    (line,) = lines(logged)
    assert (line["status"], line["address"], line["user"]) == (500, "-", "-")


def test_a_flood_of_requests_does_not_become_a_flood_of_lines() -> None:
    budget = LineBudget()
    addresses = [f"192.0.2.{number}" for number in range(20)]
    taken = [budget.take(10.0, address, is_write=True) for address in addresses * 10]
    assert [omitted for omitted in taken if omitted is not None] == [0] * LINES_PER_S
    assert budget.take(10.9, "192.0.2.1", is_write=True) is None
    assert budget.take(11.0, "192.0.2.1", is_write=True) == LINES_PER_S + 1  # omitted before
    assert budget.take(11.0, "192.0.2.1", is_write=True) == 0


@pytest.mark.parametrize("is_write", [True, False])
@pytest.mark.parametrize("processes", [1, 2, 16])
def test_a_flood_from_four_addresses_leaves_lines_for_what_another_one_does(
    is_write: bool, processes: int
) -> None:
    budget = LineBudget(LINES_PER_S // processes)
    for number in range(4000):
        budget.take(10.0, f"192.0.2.{number % 4}", is_write=is_write)
    assert budget.take(10.5, "198.51.100.7", is_write=True) is not None


def test_refusals_leave_lines_for_what_changes_something() -> None:
    budget = LineBudget()
    for number in range(4000):
        budget.take(10.0, f"192.0.2.{number % 200}", is_write=False)
    writes = [budget.take(10.0, f"192.0.2.{number}", is_write=True) for number in range(200)]
    assert sum(omitted is not None for omitted in writes) == LINES_PER_S // 2


def test_refusals_of_an_address_leave_lines_for_its_own_writes() -> None:
    budget = LineBudget()
    for _ in range(100):
        budget.take(10.0, "192.0.2.1", is_write=False)
    writes = [budget.take(10.0, "192.0.2.1", is_write=True) for _ in range(100)]
    assert sum(omitted is not None for omitted in writes) == LINES_PER_S // 10


def test_the_addresses_of_one_house_share_its_lines() -> None:
    async def not_found(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})

    async def flood() -> None:
        access_log = AccessLog(not_found, logs=LoggedRequests.WRITES, monotonic=lambda: 1.0)
        for number in range(100):
            await access_log(scope(client=(f"2001:db8::{number:x}", 7)), no_body, nowhere)

    with capture_logs() as logged:
        asyncio.run(flood())
    assert len(lines(logged)) == LINES_PER_S // 10
    assert lines(logged)[1]["address"] == "2001:db8::1", "but each is named"


def test_lines_that_were_left_out_are_counted_in_the_next_one() -> None:
    now_s = 0.0

    async def not_found(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})

    async def flood() -> None:
        nonlocal now_s
        access_log = AccessLog(not_found, logs=LoggedRequests.ERRORS, monotonic=lambda: now_s)
        for _ in range(LINES_PER_S // 10 + 7):
            await access_log(scope(), no_body, nowhere)
        now_s = 1.0
        await access_log(scope(), no_body, nowhere)

    with capture_logs() as logged:
        asyncio.run(flood())
    assert len(lines(logged)) == LINES_PER_S // 10 + 1
    assert [line["omitted"] for line in lines(logged) if "omitted" in line] == [7]


def scope(client: tuple[str, int] | None = None) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": "/", "headers": [], "client": client}


async def no_body() -> dict[str, Any]:
    return {"type": "http.request", "body": b""}


async def nowhere(_: Any) -> None:
    """Where answers go that nobody reads."""
