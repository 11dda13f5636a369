"""Names and origins: who may reach the API, and from where something may be changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.unit.entrypoints.api.conftest import Api

WRITES = [
    ("POST", "/api/sessions"),
    ("POST", "/api/sessions/ses_x/versions/1/restore"),
    ("DELETE", "/api/sessions/ses_x"),
    ("PUT", "/api/sessions"),
    ("PATCH", "/api/sessions"),
    ("POST", "/"),
]
writes = pytest.mark.parametrize(("method", "path"), WRITES)


def send(client: TestClient, method: str, path: str, *headers: tuple[str, str]) -> tuple[int, Any]:
    answer = client.request(method, path, headers=headers)
    return answer.status_code, answer.json()


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST."]
)
def test_the_names_of_the_page_are_answered(client: TestClient, host: str) -> None:
    assert send(client, "GET", "/health", ("Host", host)) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/api/templates", "/docs", "/none"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "apps.localhost", "a b"]
)
def test_any_other_name_is_misdirected(client: TestClient, path: str, host: str) -> None:
    status, body = send(client, "GET", path, ("Host", host))
    assert (status, body["code"]) == (421, "host_refused")
    assert "SPAWN_EXTRA_HOSTS" in body["detail"]
    assert host not in body["detail"]


def test_a_rebound_name_starts_no_app(client: TestClient, operator: Api) -> None:
    answer = client.post(
        "/api/sessions", json={"template": "todo"}, headers={"Host": "evil.example"}
    )
    assert answer.status_code == 421
    assert operator("GET", "/api/admin/sessions")[1]["sessions"] == []


@pytest.mark.parametrize(
    "hosts", [[], ["localhost", "evil.example"], ["localhost", "localhost"]], ids=len
)
def test_a_request_names_one_host(client: TestClient, hosts: Sequence[str]) -> None:
    status = _raw(client, [(b"host", host.encode()) for host in hosts])
    assert status == 421


def _raw(client: TestClient, headers: list[tuple[bytes, bytes]]) -> int:
    """The status of a request with exactly these headers: no client library would send them."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send_message(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/health",
        "raw_path": b"/health",
        "query_string": b"",
        "headers": headers,
    }
    assert client.portal is not None
    client.portal.call(client.app, scope, receive, send_message)
    return statuses[0]


@writes
@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://a2345abcdefghijk.apps.localhost:8080", "null", "file://", ""],
)
def test_a_write_from_another_origin_is_refused(
    client: TestClient, method: str, path: str, origin: str
) -> None:
    status, body = send(client, method, path, ("Origin", origin))
    assert (status, body["code"]) == (403, "origin_refused")
    assert "SPAWN_EXTRA_HOSTS" in body["detail"]


@writes
@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site"])
def test_a_write_that_another_site_causes_is_refused(
    client: TestClient, method: str, path: str, site: str
) -> None:
    status, body = send(
        client, method, path, ("Origin", "http://localhost:8080"), ("Sec-Fetch-Site", site)
    )
    assert (status, body["code"]) == (403, "origin_refused")


@writes
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Origin", "http://localhost:8080"), ("Sec-Fetch-Site", "same-origin")],
        [("Origin", "https://127.0.0.1")],
        [("Origin", "http://[::1]:8080")],
        [("Sec-Fetch-Site", "none")],
    ],
)
def test_writes_of_the_page_and_of_programs_pass(
    client: TestClient, method: str, path: str, headers: list[tuple[str, str]]
) -> None:
    status, body = send(client, method, path, *headers)
    assert status not in {403, 421}, body


def test_a_second_origin_cannot_hide_behind_the_first(client: TestClient) -> None:
    status, _ = send(
        client,
        "DELETE",
        "/api/sessions/ses_x",
        ("Origin", "http://localhost"),
        ("Origin", "http://evil.example"),
    )
    assert status == 403


def test_reading_needs_no_origin(client: TestClient) -> None:
    status, _ = send(client, "GET", "/api/templates", ("Origin", "http://evil.example"))
    assert status == 200
