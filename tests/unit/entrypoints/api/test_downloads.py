"""Downloads of an app's source: what is sent, and how many at once."""

from __future__ import annotations

import io
import zipfile
from contextlib import ExitStack
from typing import Any

from starlette.testclient import TestClient

from orchestrator.entrypoints.api.context import Context
from tests.unit.entrypoints.api.conftest import Api


def context_of(client: TestClient) -> Context:
    app: Any = client.app
    context: Context = app.state.context
    return context


def start(api: Api) -> str:
    status, session = api("POST", "/api/sessions", {"template": "notes"})
    assert status == 202, session
    return f"/api/sessions/{session['session_id']}/bundle"


def test_the_source_is_a_zip_file(client: TestClient, user: Api) -> None:
    answer = client.get(start(user), headers=user.headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert "spawn.json" in archive.namelist()


def test_a_user_who_downloads_too_much_at_once_is_refused_and_others_are_not(
    client: TestClient, user: Api, operator: Api
) -> None:
    path, other_path = start(user), start(operator)
    context = context_of(client)
    user_id = next(
        session.user_id for session in context.deps.store.sessions.list() if session.id in path
    )
    with ExitStack() as holds:
        holds.enter_context(context.downloads.hold(user_id, 2))
        status, problem = user("GET", path)
        assert (status, problem["code"]) == (429, "too_many_downloads")
        assert client.get(other_path, headers=operator.headers).status_code == 200
        assert context.api_metrics.registry.get_sample_value("spawn_refused_downloads_total") == 1
    for _ in range(5):
        assert client.get(path, headers=user.headers).status_code == 200, "each one lets go"


def test_what_cannot_be_sent_is_let_go(client: TestClient, user: Api) -> None:
    path = start(user)
    for _ in range(5):
        status, problem = user("GET", f"{path}?version=9")
        assert (status, problem["code"]) == (404, "version_unknown")
    assert client.get(path, headers=user.headers).status_code == 200
