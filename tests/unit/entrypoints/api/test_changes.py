"""/api/sessions/{id}/messages, versions and usage: the endpoints for changing an app."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from orchestrator.domain import ids
from orchestrator.domain.sessions.session import Failure, Phase, Session
from tests.unit.entrypoints.api.conftest import Api
from tests.unit.services.world import World, bundle_of

BROKEN = Failure(code="app_not_healthy", message="no answer on /")


@pytest.fixture
def app(world: World) -> Session:
    world.add_host()
    return world.generate_app()


def path(session: Session, name: str) -> str:
    return f"/api/sessions/{session.id}/{name}"


def status(operator: Api, session: Session) -> dict[str, Any]:
    answer: dict[str, Any] = operator("GET", f"/api/status/{session.id}")[1]
    return answer


@pytest.mark.parametrize(
    ("method", "name", "body"),
    [
        ("GET", "messages", None),
        ("POST", "messages", {"text": "blue"}),
        ("GET", "versions", None),
        ("POST", "versions/1/restore", None),
        ("GET", "usage", None),
    ],
)
def test_only_the_owner_can_see_or_change_an_app(
    app: Session, user: Api, method: str, name: str, body: Any
) -> None:
    code, problem = user(method, path(app, name), body)
    assert (code, problem["code"]) == (404, "session_unknown")


def test_a_message_is_accepted_and_shown_while_it_is_carried_out(
    world: World, app: Session, operator: Api
) -> None:
    url = status(operator, app)["url"]
    code, added = operator("POST", path(app, "messages"), {"text": " make it blue "})
    assert code == 202
    assert added["session"]["waiting"] == 1
    assert added["message"] == {
        "number": 1,
        "kind": "message",
        "text": "make it blue",
        "restores": None,
        "state": "queued",
        "created_at": world.clock.now().isoformat(),
        "ended_at": None,
        "version": None,
        "summary": "",
        "error": None,
    }
    world.converge(app)
    current = status(operator, app)
    assert (current["status"], current["ready"], current["url"]) == ("generating", False, url)
    assert current["change"] == {
        "number": 1,
        "kind": "message",
        "text": "make it blue",
        "restores": None,
    }
    assert current["waiting"] == 0
    world.carry_out_change(app, bundle_of("blue"))
    world.converge(app)
    current = status(operator, app)
    assert (current["status"], current["change"], current["version"]) == ("ready", None, 2)
    (message,) = operator("GET", path(app, "messages"))[1]["messages"]
    assert (message["state"], message["version"], message["summary"]) == ("done", 2, "It is blue.")
    assert message["ended_at"] is not None
    versions = operator("GET", path(app, "versions"))[1]["versions"]
    assert [
        (version["version"], version["running"], version["message"]) for version in versions
    ] == [
        (1, False, None),
        (2, True, 1),
    ]


def test_a_failed_change_shows_its_error_and_the_app_stays(
    world: World, app: Session, operator: Api
) -> None:
    operator("POST", path(app, "messages"), {"text": "blue"})
    world.converge(app)
    world.upload_bundle(app, bundle_of("broken"), healthy=False)
    world.report(app, Phase.READY, setback=BROKEN)
    world.converge(app)
    (message,) = operator("GET", path(app, "messages"))[1]["messages"]
    assert message["state"] == "failed"
    assert message["error"] == {"code": "app_not_healthy", "message": "no answer on /"}
    current = status(operator, app)
    assert (current["status"], current["version"], current["error"]) == ("ready", 1, None)
    code, problem = operator("POST", path(app, "versions/2/restore"))
    assert (code, problem["code"]) == (409, "version_not_healthy")


@pytest.mark.parametrize(
    ("name", "body", "status_code", "code"),
    [
        ("messages", {"text": " "}, 422, "message_empty"),
        ("messages", {"text": "x" * 16_385}, 422, "message_too_large"),
        ("messages", {"text": "a", "more": 1}, 422, "invalid_input"),
        ("versions/9/restore", None, 404, "version_unknown"),
        ("versions/1/restore", None, 409, "version_running"),
    ],
)
def test_a_refused_change_is_answered_with_a_code(
    app: Session, operator: Api, name: str, body: Any, status_code: int, code: str
) -> None:
    actual, problem = operator("POST", path(app, name), body)
    assert (actual, problem["code"]) == (status_code, code)
    assert problem["detail"]


def test_a_sixth_message_is_refused_with_a_time_to_retry(
    app: Session, operator: Api, client: TestClient
) -> None:
    for number in range(5):
        assert operator("POST", path(app, "messages"), {"text": f"step {number}"})[0] == 202
    answer = client.post(path(app, "messages"), json={"text": "one more"}, headers=operator.headers)
    assert (answer.status_code, answer.json()["code"]) == (429, "messages_full")
    assert int(answer.headers["retry-after"]) > 0


def test_a_repeated_message_is_added_once(app: Session, operator: Api, client: TestClient) -> None:
    headers = {**operator.headers, "Idempotency-Key": "one"}
    first = client.post(path(app, "messages"), json={"text": "blue"}, headers=headers)
    second = client.post(path(app, "messages"), json={"text": "blue"}, headers=headers)
    assert first.json()["message"] == second.json()["message"]
    assert len(operator("GET", path(app, "messages"))[1]["messages"]) == 1


def test_messages_that_wait_when_the_session_ends_have_failed(
    world: World, app: Session, operator: Api
) -> None:
    operator("POST", path(app, "messages"), {"text": "blue"})
    world.request_end(app)
    world.settle(app)
    (message,) = operator("GET", path(app, "messages"))[1]["messages"]
    assert (message["state"], message["error"]["code"]) == ("failed", "session_ended")
    assert message["ended_at"] == world.session(app).state_since.isoformat()
    code, problem = operator("POST", path(app, "messages"), {"text": "green"})
    assert (code, problem["code"]) == (409, "session_ending")
    assert status(operator, app)["waiting"] == 0


def test_a_template_is_the_first_version_and_can_be_downloaded(
    world: World, operator: Api, client: TestClient
) -> None:
    world.add_host()
    app = world.run_session(world.create_session())
    (version,) = operator("GET", path(app, "versions"))[1]["versions"]
    assert (version["version"], version["running"], version["provider"]) == (1, True, "")
    answer = client.get(path(app, "bundle?version=1"), headers=operator.headers)
    assert answer.headers["content-type"] == "application/zip"
    assert operator("GET", path(app, "usage"))[1]["calls"] == 0


def test_no_version_of_an_app_that_ended_is_running(
    world: World, app: Session, operator: Api
) -> None:
    world.request_end(app)
    world.settle(app)
    (version,) = operator("GET", path(app, "versions"))[1]["versions"]
    assert (version["version"], version["running"]) == (1, False)


@pytest.mark.parametrize(
    ("code", "prompt", "offer"),
    [
        ("provider_unavailable", "a board of cards like kanban, in pink", "kanban"),
        ("budget_exhausted", "Snake, but with two snakes and a portal", "snake"),
        ("provider_no_credit", "Snake, but with two snakes and a portal", "snake"),
        ("provider_auth", "zzz qqq", None),
        ("refused", "a kanban board for villains", None),
    ],
)
def test_if_no_provider_could_write_the_app_the_nearest_template_is_offered(
    world: World, operator: Api, code: str, prompt: str, offer: str | None
) -> None:
    session = world.create_session(prompt=f"{prompt}; whatever else there is", template=None)
    world.save(session, failure=Failure(code=code, message="no"), attempt=3)
    world.converge(session)
    current = status(operator, session)
    assert current["status"] == "failed"
    assert (current["offer"] or {}).get("template") == offer


def test_a_reused_app_says_so_and_a_fresh_one_can_be_had(world: World, operator: Api) -> None:
    world.add_host()
    body = {"prompt": "a sun dial"}
    first = operator("POST", "/api/sessions", body)[1]
    assert first["reused"] is False
    world.write_app(world.session(ids.SessionId(first["session_id"])))
    assert operator("POST", "/api/sessions", body)[1]["reused"] is True
    assert operator("POST", "/api/sessions", {**body, "fresh": True})[1]["reused"] is False
