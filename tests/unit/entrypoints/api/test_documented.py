"""The OpenAPI document says what the API does. conftest.py compares each answer with it."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from orchestrator.domain.sessions.session import Session
from tests.documented_answers import Document
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
