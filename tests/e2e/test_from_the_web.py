"""What other sites' pages may do with a whole installation, and what the log says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.installation import Installation, installed, until


def logged(spawn: Installation, name: str, event: str) -> list[dict[str, Any]]:
    lines = (spawn.state_dir / "log" / f"{name}.log").read_text().splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return [entry for entry in entries if entry["event"] == event]


def test_a_name_that_leads_here_starts_no_app(spawn: Installation) -> None:
    for host in ("evil.example", "localhost.evil.example"):
        refused = spawn.call("POST", "/api/sessions", {"template": "todo"}, host=host)
        assert (refused.status, refused.json["code"]) == (421, "host_refused")
        for path in ("/", "/metrics", "/ready", "/docs", "/health"):
            assert spawn.call("GET", path, host=host).status == 421
    assert spawn.call("GET", "/health", host="127.0.0.1").status == 200


def test_an_apps_page_changes_nothing_at_the_page(spawn: Installation) -> None:
    session = spawn.create(template="todo")
    ready = spawn.wait_for(session["session_id"], "ready")
    headers = {"Origin": ready["url"].rstrip("/"), "Sec-Fetch-Site": "same-site"}
    path = f"/api/sessions/{session['session_id']}"
    for method, target in (("DELETE", path), ("POST", f"{path}/versions/1/restore")):
        refused = spawn.call(method, target, headers=headers, key=spawn.operator_key)
        assert (refused.status, refused.json["code"]) == (403, "origin_refused")
    own = {"Origin": f"http://localhost:{spawn.http_port}", "Sec-Fetch-Site": "same-origin"}
    assert spawn.call("DELETE", path, headers=own, key=spawn.operator_key).status == 202


def test_the_log_says_who_did_what_and_holds_no_secret(spawn: Installation) -> None:
    refused = spawn.call("DELETE", "/api/sessions/ses_none?token=abc", key=spawn.operator_key)
    assert refused.status == 404
    spawn.call("GET", "/?token=abc", host="a" * 16 + ".apps.localhost")

    def entries() -> list[dict[str, Any]]:
        wanted = refused.headers["x-request-id"]
        finished = logged(spawn, "api", "request_finished")
        return [entry for entry in finished if entry["request"] == wanted]

    (entry,) = until(entries, 10, "the request in the log")
    assert (entry["method"], entry["path"], entry["status"]) == (
        "DELETE",
        "/api/sessions/ses_none",
        404,
    )
    assert entry["address"] == "127.0.0.1"
    assert entry["user"] not in {"", "-"}
    app_requests = until(
        lambda: logged(spawn, "apps", "app_request_finished"), 10, "the app's request in the log"
    )
    assert {"address": "127.0.0.1", "slug": "a" * 16, "status": 404}.items() <= app_requests[
        -1
    ].items()
    for name in ("api", "apps"):
        text = (spawn.state_dir / "log" / f"{name}.log").read_text()
        assert spawn.operator_key not in text
        assert "token=abc" not in text


@pytest.fixture(scope="module")
def on_ipv6() -> Iterator[Installation]:
    with installed(ready=False, SPAWN_HTTP_ADDRESS="::1") as installation:
        yield installation


def test_a_proxy_on_an_ipv6_address_serves_apps_and_the_command_line(
    on_ipv6: Installation,
) -> None:
    link = on_ipv6.spawnctl("run", "--template", "todo").stdout.strip()
    assert link.startswith("http://")
    assert "ready" in on_ipv6.spawnctl("sessions", "list").stdout.lower()
