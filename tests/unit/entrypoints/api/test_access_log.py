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
    assert [budget.take(10.0) for _ in range(LINES_PER_S + 5)] == [0] * LINES_PER_S + [None] * 5
    assert budget.take(10.9) is None
    assert budget.take(11.0) == 6  # the number of lines that were left out before
    assert budget.take(11.0) == 0


def test_lines_that_were_left_out_are_counted_in_the_next_one() -> None:
    now_s = 0.0

    async def not_found(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})

    async def flood() -> None:
        nonlocal now_s
        access_log = AccessLog(not_found, logs=LoggedRequests.ERRORS, monotonic=lambda: now_s)
        for _ in range(LINES_PER_S + 7):
            await access_log(scope(), no_body, nowhere)
        now_s = 1.0
        await access_log(scope(), no_body, nowhere)

    with capture_logs() as logged:
        asyncio.run(flood())
    assert len(lines(logged)) == LINES_PER_S + 1
    assert [line["omitted"] for line in lines(logged) if "omitted" in line] == [7]


def scope() -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": "/", "headers": [], "client": None}


async def no_body() -> dict[str, Any]:
    return {"type": "http.request", "body": b""}


async def nowhere(_: Any) -> None:
    """Where answers go that nobody reads."""
