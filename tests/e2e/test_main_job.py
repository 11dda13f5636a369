"""The main job, end to end: a prompt becomes an app at its own URL, and its end removes it."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.installation import Installation, until

ENDED = ("destroyed", "failed")


@pytest.mark.parametrize(
    ("prompt", "template", "title"),
    [
        ("a kanban board", "kanban", "kanban"),
        ("please make me a simple notes app", "notes", "notes"),
        ("URL shortener", "shortener", "short"),
    ],
)
def test_a_prompt_becomes_an_app_that_answers_at_its_own_url(
    spawn: Installation, prompt: str, template: str, title: str
) -> None:
    session = spawn.create(prompt)
    ready = spawn.wait_for(session["session_id"], "ready", "failed")
    assert ready["status"] == "ready", ready
    assert ready["template"] == template
    assert ready["progress"] == 100
    assert ready["error"] is None
    page = spawn.call_app(ready["url"])
    assert page.status == 200
    assert title in page.text.lower()


def test_a_warm_sandbox_that_nobody_claimed_answers_404(spawn: Installation) -> None:
    def warm_sandboxes() -> list[Any]:
        sandboxes = spawn.admin("pool")["sandboxes"]
        return [sandbox for sandbox in sandboxes if sandbox["state"] == "warm"]

    slug = until(warm_sandboxes, 60, "a warm sandbox")[0]["slug"]
    assert spawn.call("GET", "/", host=f"{slug}.apps.localhost").status == 404


def test_a_url_without_an_app_answers_404(spawn: Installation) -> None:
    assert spawn.call("GET", "/", host="aaaaaaaaaaaaaaaa.apps.localhost").status == 404


def test_deleting_a_session_leaves_no_container_route_or_token(spawn: Installation) -> None:
    session = spawn.create(template="todo")
    ready = spawn.wait_for(session["session_id"], "ready")
    sandbox_id = spawn.admin(f"sessions/{session['session_id']}")["sandbox"]["sandbox_id"]
    assert sandbox_id in spawn.sandboxes()

    path = f"/api/sessions/{session['session_id']}"
    assert spawn.call("DELETE", path, key=spawn.operator_key).status == 202
    spawn.wait_for(session["session_id"], "destroyed")

    assert sandbox_id not in spawn.sandboxes()
    assert spawn.call_app(ready["url"]).status == 404
    live = {sandbox["sandbox_id"] for sandbox in spawn.admin("pool")["sandboxes"]}
    assert sandbox_id not in live
    assert spawn.call("DELETE", path, key=spawn.operator_key).status == 202  # a repeat is no error


def test_the_source_of_an_app_can_be_downloaded_after_its_end(spawn: Installation) -> None:
    session = spawn.create(template="todo")
    spawn.wait_for(session["session_id"], "ready")
    spawn.call("DELETE", f"/api/sessions/{session['session_id']}", key=spawn.operator_key)
    spawn.wait_for(session["session_id"], "destroyed")
    source = spawn.call(
        "GET", f"/api/sessions/{session['session_id']}/bundle", key=spawn.operator_key
    )
    assert source.status == 200
    assert source.body.startswith(b"PK")


def test_an_expired_app_is_destroyed(spawn: Installation) -> None:
    session = spawn.create(template="todo", ttl="1h")
    spawn.wait_for(session["session_id"], "ready")
    _expire(spawn, session["session_id"])
    ended = spawn.wait_for(session["session_id"], *ENDED)
    assert ended["status"] == "destroyed"


def test_an_extended_app_lives_on(spawn: Installation) -> None:
    session = spawn.create(template="todo", ttl="1h")
    spawn.wait_for(session["session_id"], "ready")
    answer = spawn.call(
        "POST",
        f"/api/sessions/{session['session_id']}/extend",
        {"ttl": "3h"},
        key=spawn.operator_key,
    )
    assert answer.status == 200
    assert answer.json["expires_at"] > session["expires_at"]
    assert answer.json["status"] == "ready"


def test_a_status_poll_answers_304_until_something_changes(spawn: Installation) -> None:
    session = spawn.create(template="todo")
    spawn.wait_for(session["session_id"], "ready")
    path = f"/api/status/{session['session_id']}"
    first = spawn.call("GET", path, key=spawn.operator_key)
    headers = {"If-None-Match": first.headers["etag"]}
    assert spawn.call("GET", path, key=spawn.operator_key, headers=headers).status == 304

    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(
            spawn.call, "GET", f"{path}?wait=30", key=spawn.operator_key, headers=headers
        )
        spawn.call("DELETE", f"/api/sessions/{session['session_id']}", key=spawn.operator_key)
        changed = waiting.result(timeout=40)
    assert changed.status == 200
    assert changed.json["status"] in {"ready", "destroying", "destroyed"}
    assert changed.headers["etag"] != first.headers["etag"]


def test_a_users_sessions_are_private(spawn: Installation) -> None:
    mine = spawn.call("POST", "/api/sessions", {"template": "todo"})
    assert mine.status == 202
    cookie = mine.headers["set-cookie"].split(";")[0]
    assert "HttpOnly" in mine.headers["set-cookie"]
    path = f"/api/status/{mine.json['session_id']}"
    assert spawn.call("GET", path, headers={"Cookie": cookie}).status == 200
    response = spawn.call("GET", path)
    assert response.status == 404
    assert response.json["code"] == "session_unknown"
    unknown_path = "/api/status/ses_" + "a" * 26
    assert (
        spawn.call("GET", unknown_path, headers={"Cookie": cookie}).json["code"]
        == "session_unknown"
    )
    session_path = f"/api/sessions/{mine.json['session_id']}"
    assert spawn.call("DELETE", session_path).status == 404
    assert spawn.call("DELETE", session_path, headers={"Cookie": cookie}).status == 202


def test_the_same_idempotency_key_makes_one_session(spawn: Installation) -> None:
    headers = {"Idempotency-Key": "once-only"}
    body = {"template": "todo"}
    key = spawn.operator_key
    first = spawn.call("POST", "/api/sessions", body, key=key, headers=headers)
    again = spawn.call("POST", "/api/sessions", body, key=key, headers=headers)
    assert (first.status, again.status) == (202, 202)
    assert first.json["session_id"] == again.json["session_id"]
    other = spawn.call("POST", "/api/sessions", {"template": "snake"}, key=key, headers=headers)
    assert (other.status, other.json["code"]) == (409, "idempotency_conflict")
    spawn.call("DELETE", f"/api/sessions/{first.json['session_id']}", key=key)


def _expire(spawn: Installation, session_id: str) -> None:
    """Move the expiry of the session into the past."""
    with sqlite3.connect(spawn.state_dir / "spawn.db", timeout=10) as database:
        result = database.execute(
            "UPDATE sessions SET expires_at = '2020-01-01 00:00:00.000000' WHERE id = ?",
            (session_id,),
        )
        assert result.rowcount == 1
    database.close()
