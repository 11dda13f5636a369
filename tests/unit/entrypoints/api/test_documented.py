"""The OpenAPI document says what the API does. conftest.py compares each answer with it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient
from starlette.types import Message, Scope

from orchestrator.adapters.proxy.refusals import REFUSALS
from orchestrator.domain import errors
from orchestrator.domain.people.access import LIMITS, TTL_MIN_S
from orchestrator.domain.sessions.session import Session, Tier
from orchestrator.services.sessions import prompts
from tests.documented_answers import Document, codes_of
from tests.unit.entrypoints.api.conftest import Api
from tests.unit.services.conftest import session
from tests.unit.services.world import World

__all__ = ["session"]

METHODS = {"DELETE", "GET", "PATCH", "POST", "PUT"}


@pytest.fixture
def document(client: TestClient) -> Document:
    return Document(client.get("/openapi.json").json())


def test_a_refused_method_is_told_which_there_are(client: TestClient, document: Document) -> None:
    for path, operations in document.paths.items():
        documented = {method.upper() for method in operations}
        for method in METHODS - documented:
            answer = client.request(method, path, json={})
            assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
            allowed = set(answer.headers["allow"].split(", "))
            assert allowed == documented | ({"HEAD"} if "GET" in documented else set())


def test_where_there_is_get_there_is_head(
    client: TestClient, document: Document, operator: Api, session: Session
) -> None:
    paths = [path for path, operations in document.paths.items() if "get" in operations]
    for path in [*paths, "/", "/docs", "/openapi.json"]:
        target = path.replace("{session_id}", session.id).replace("{name}", "alpha")
        get, head = (
            client.request(method, target, headers=operator.headers) for method in ("GET", "HEAD")
        )
        assert (head.status_code, head.content) == (get.status_code, b""), path
        assert head.headers["content-type"] == get.headers["content-type"], path


@pytest.mark.parametrize("path", ["/api/sessions", "/api/admin/keys"])
def test_the_document_says_who_needs_a_key(document: Document, path: str) -> None:
    needs_none = {} in document.paths[path]["get"]["security"]
    assert needs_none is (path == "/api/sessions")


def test_the_document_has_the_times_to_live_that_are_accepted(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    text, number = document["components"]["schemas"]["Extension"]["properties"]["ttl"]["anyOf"]
    pattern = re.compile(text["pattern"])
    ttl_max_s = LIMITS[Tier.OPERATOR].ttl_max_s
    assert (number["minimum"], number["maximum"]) == (TTL_MIN_S, ttl_max_s)
    for unit, size_s in {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}.items():
        smallest, largest = -(-TTL_MIN_S // size_s), ttl_max_s // size_s
        assert not pattern.match(f"{smallest - 1}{unit}")
        assert not pattern.match(f"{largest + 1}{unit}")
        assert not pattern.match(f"{10 * largest}{unit}")
        for count in {*range(smallest, largest + 1, max(1, largest // 997)), largest}:
            assert pattern.match(f"{count}{unit}"), (count, unit)


def test_a_text_of_the_document_is_a_message(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()["components"]["schemas"]["NewMessage"]
    assert schema["required"] == ["text"]
    pattern = re.compile(schema["properties"]["text"]["pattern"])
    for text in ("blue", " blue\n", "\N{SNOWMAN}", "a\tb"):
        assert pattern.match(text)
        assert prompts.check_text(text, kind="message", field="text", if_empty="no")
    for text in ("", " \n", "a\0", "\x7fa", "a\x85b"):
        assert not pattern.match(text)
        with pytest.raises(errors.InvalidInput):
            prompts.check_text(text, kind="message", field="text", if_empty="no")


@pytest.mark.parametrize(
    ("path", "name", "links_min"),
    [("/api/sessions", "session_id", 12), ("/api/admin/keys", "key_id", 1)],
)
def test_the_links_of_an_answer_lead_to_what_was_made(
    client: TestClient, document: Document, operator: Api, path: str, name: str, links_min: int
) -> None:
    body = {"template": "todo"} if path == "/api/sessions" else {"name": "ci"}
    made = client.post(path, json=body, headers=operator.headers)
    links = document.paths[path]["post"]["responses"][str(made.status_code)]["links"]
    assert len(links) >= links_min
    assert name in made.json()
    for link in links.values():
        assert link["parameters"] == {name: f"$response.body#/{name}"}


def test_the_document_has_what_the_proxy_says_instead_of_the_api(document: Document) -> None:
    """Of each operation, except what only apps or no operation at all are answered."""
    of_apps_or_none = {"404", "page-404", "405", "429", "502", "503"}
    refusals = [refusal for refusal in REFUSALS if refusal.name not in of_apps_or_none]
    assert len(refusals) >= 8
    for operations in document.paths.values():
        for method, operation in operations.items():
            for refusal in refusals:
                if refusal.status == 413 and method not in {"delete", "post"}:
                    continue  # who reads sends no body
                assert refusal.code in codes_of(operation, str(refusal.status))


def test_a_version_leads_to_its_restoration_and_to_its_source(
    client: TestClient, document: Document, user: Api, world: World
) -> None:
    path = "/api/sessions/{session_id}/versions"
    links = document.paths[path]["get"]["responses"]["200"]["links"]
    restore = document.paths[f"{path}/{{version}}/restore"]["post"]["operationId"]
    bundle = document.paths["/api/sessions/{session_id}/bundle"]["get"]["operationId"]
    assert set(links) == {restore, bundle}
    world.add_host()
    status, created = user("POST", "/api/sessions", {"prompt": "a tide calendar"})
    assert status == 202
    session = world.write_app(world.session(created["session_id"]))
    answer = client.get(path.replace("{session_id}", session.id), headers=user.headers).json()
    assert answer["versions"][0]["version"] == 1
    for link in links.values():
        assert link["parameters"]["version"] == "$response.body#/versions/0/version"


def test_a_page_leads_to_the_next_one(document: Document) -> None:
    lists = {
        path
        for path, operations in document.paths.items()
        if "cursor" in {each["name"] for each in operations.get("get", {}).get("parameters", ())}
    }
    assert len(lists) == 4
    for path in lists:
        operation = document.paths[path]["get"]
        (link,) = operation["responses"]["200"]["links"].values()
        assert link["operationId"] == operation["operationId"]
        assert link["parameters"]["cursor"] == "$response.body#/next"


@pytest.mark.parametrize(
    "change",
    [
        lambda status: {**status, "surprise": 1},
        lambda status: {name: status[name] for name in status if name != "url"},
        lambda status: {**status, "progress": "100"},
        lambda status: {**status, "created_at": "today"},
        lambda status: {**status, "error": {"code": "x"}},
    ],
)
def test_the_tests_notice_an_answer_that_is_not_documented(
    client: TestClient, document: Document, user: Api, change: Callable[[Any], Any]
) -> None:
    answer = client.post("/api/sessions", json={"template": "todo"}, headers=user.headers)
    document.check(answer)
    other = httpx2.Response(202, json=change(answer.json()), request=answer.request)
    with pytest.raises(AssertionError):
        document.check(other)


BODIES = {
    "Extension": {"ttl": "2h"},
    "NewMessage": {"text": "make it blue"},
}


def test_no_operation_reaches_another_users_session(
    client: TestClient, document: Document, user: Api, visitor: Api, session: Session
) -> None:
    names = {
        name
        for name in document.names
        if "{session_id}" in name and not name.split()[1].startswith("/api/admin")
    }
    assert len(names) >= 10
    for name in names:
        method, path = name.split()
        operation = document.paths[path][method.lower()]
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        fields = BODIES.get(body.get("schema", {}).get("$ref", "").rpartition("/")[2])
        target = path.replace("{session_id}", session.id).replace("{version}", "1")
        for caller in (user, visitor):
            answer = client.request(method, target, json=fields, headers=caller.headers)
            assert (answer.status_code, answer.json()["code"]) == (404, "session_unknown"), name


def test_the_document_is_made_once_however_often_it_is_asked_for(client: TestClient) -> None:
    async def ask() -> bytes:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope: Scope = {
            "type": "http",
            "method": "GET",
            "path": "/openapi.json",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
        }
        await client.app(scope, receive, send)
        bodies = [message["body"] for message in sent if message.get("body")]
        assert len(bodies) == 1
        return bytes(bodies[0])

    first, again = asyncio.run(ask()), asyncio.run(ask())
    assert first is again
