"""/api/sessions/{id}/messages, versions and usage: what the page and programs ask."""

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
    world.host()
    return world.generated()


def path(session: Session, rest: str) -> str:
    return f"/api/sessions/{session.id}/{rest}"


def status(operator: Api, session: Session) -> dict[str, Any]:
    answer: dict[str, Any] = operator("GET", f"/api/status/{session.id}")[1]
    return answer


@pytest.mark.parametrize(
    ("method", "rest", "body"),
    [
        ("GET", "messages", None),
        ("POST", "messages", {"text": "blue"}),
        ("GET", "versions", None),
        ("POST", "versions/1/restore", None),
        ("GET", "usage", None),
    ],
)
def test_an_app_is_its_owners_business(
    app: Session, user: Api, method: str, rest: str, body: Any
) -> None:
    code, problem = user(method, path(app, rest), body)
    assert (code, problem["code"]) == (404, "session_unknown")


def test_a_message_is_taken_and_told_of_while_it_is_carried_out(
    world: World, app: Session, operator: Api
) -> None:
    url = status(operator, app)["url"]
    code, asked = operator("POST", path(app, "messages"), {"text": " make it blue "})
    assert code == 202
    assert asked["session"]["waiting"] == 1
    assert asked["message"] == {
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
    now = status(operator, app)
    assert (now["status"], now["ready"], now["url"]) == ("generating", False, url)
    assert now["change"] == {
        "number": 1,
        "kind": "message",
        "text": "make it blue",
        "restores": None,
    }
    assert now["waiting"] == 0
    world.carry_out(app, bundle_of("blue"))
    world.converge(app)
    now = status(operator, app)
    assert (now["status"], now["change"], now["version"]) == ("ready", None, 2)
    (message,) = operator("GET", path(app, "messages"))[1]["messages"]
    assert (message["state"], message["version"], message["summary"]) == ("done", 2, "It is blue.")
    assert message["ended_at"] is not None
    versions = operator("GET", path(app, "versions"))[1]["versions"]
    assert [(one["version"], one["running"], one["message"]) for one in versions] == [
        (1, False, None),
        (2, True, 1),
    ]


def test_a_change_that_failed_says_why_and_the_app_stays(
    world: World, app: Session, operator: Api
) -> None:
    operator("POST", path(app, "messages"), {"text": "blue"})
    world.converge(app)
    world.keep(app, bundle_of("broken"), healthy=False)
    world.report(app, Phase.READY, setback=BROKEN)
    world.converge(app)
    (message,) = operator("GET", path(app, "messages"))[1]["messages"]
    assert message["state"] == "failed"
    assert message["error"] == {"code": "app_not_healthy", "message": "no answer on /"}
    now = status(operator, app)
    assert (now["status"], now["version"], now["error"]) == ("ready", 1, None)
    code, problem = operator("POST", path(app, "versions/2/restore"))
    assert (code, problem["code"]) == (409, "version_not_healthy")


@pytest.mark.parametrize(
    ("rest", "body", "code", "problem"),
    [
        ("messages", {"text": " "}, 422, "message_empty"),
        ("messages", {"text": "x" * 16_385}, 422, "message_too_large"),
        ("messages", {"text": "a", "more": 1}, 422, "invalid_input"),
        ("versions/9/restore", None, 404, "version_unknown"),
        ("versions/1/restore", None, 409, "version_running"),
    ],
)
def test_what_cannot_be_done_is_answered_with_a_code(
    app: Session, operator: Api, rest: str, body: Any, code: int, problem: str
) -> None:
    answered, said = operator("POST", path(app, rest), body)
    assert (answered, said["code"]) == (code, problem)
    assert said["detail"]


def test_a_sixth_message_is_told_when_to_come_back(
    app: Session, operator: Api, client: TestClient
) -> None:
    for number in range(5):
        assert operator("POST", path(app, "messages"), {"text": f"step {number}"})[0] == 202
    answer = client.post(
        path(app, "messages"), json={"text": "one more"}, headers=operator._headers
    )
    assert (answer.status_code, answer.json()["code"]) == (429, "messages_full")
    assert int(answer.headers["retry-after"]) > 0


def test_a_repeated_message_is_one(app: Session, operator: Api, client: TestClient) -> None:
    headers = {**operator._headers, "Idempotency-Key": "one"}
    first = client.post(path(app, "messages"), json={"text": "blue"}, headers=headers)
    again = client.post(path(app, "messages"), json={"text": "blue"}, headers=headers)
    assert first.json()["message"] == again.json()["message"]
    assert len(operator("GET", path(app, "messages"))[1]["messages"]) == 1


def test_what_still_waited_when_the_session_ended_has_failed(
    world: World, app: Session, operator: Api
) -> None:
    operator("POST", path(app, "messages"), {"text": "blue"})
    world.want_gone(app)
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
    world.host()
    app = world.run(world.ask())
    (version,) = operator("GET", path(app, "versions"))[1]["versions"]
    assert (version["version"], version["running"], version["provider"]) == (1, True, "")
    answer = client.get(path(app, "bundle?version=1"), headers=operator._headers)
    assert answer.headers["content-type"] == "application/zip"
    assert operator("GET", path(app, "usage"))[1]["calls"] == 0


@pytest.mark.parametrize(
    ("code", "prompt", "offer"),
    [
        ("provider_unavailable", "a board of cards like kanban, in pink", "kanban"),
        ("budget_exhausted", "Snake, but with two snakes and a portal", "snake"),
        ("provider_auth", "zzz qqq", None),
        ("refused", "a kanban board for villains", None),
    ],
)
def test_when_nobody_could_write_it_the_nearest_template_is_offered(
    world: World, operator: Api, code: str, prompt: str, offer: str | None
) -> None:
    made = world.ask(prompt=f"{prompt}; whatever else there is", template=None)
    world.save(made, failure=Failure(code=code, message="no"), attempt=3)
    world.converge(made)
    found = status(operator, made)
    assert found["status"] == "failed"
    assert (found["offer"] or {}).get("template") == offer


def test_a_reused_app_says_so_and_a_fresh_one_can_be_had(world: World, operator: Api) -> None:
    world.host()
    body = {"prompt": "a sun dial"}
    first = operator("POST", "/api/sessions", body)[1]
    assert first["reused"] is False
    world.write(world.session(ids.SessionId(first["session_id"])))
    assert operator("POST", "/api/sessions", body)[1]["reused"] is True
    assert operator("POST", "/api/sessions", {**body, "fresh": True})[1]["reused"] is False
