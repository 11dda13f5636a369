"""The OpenAPI document says what the API does. conftest.py compares each answer with it."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from orchestrator.adapters.proxy.refusals import REFUSALS
from orchestrator.domain import errors
from orchestrator.domain.people.access import LIMITS, TTL_MIN_S
from orchestrator.domain.sessions.session import Session, Tier
from orchestrator.services.sessions import prompts
from tests.documented_answers import Document, codes_of
from tests.unit.entrypoints.api.conftest import Api
from tests.unit.services.conftest import session

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
    for path in [*paths, "/", "/docs", "/openapi.json", "/static/page.js"]:
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
