"""The agent app over the world of the services: what it takes of a report, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from orchestrator import config
from orchestrator.domain.sessions.session import Failure, Phase, Report, Session
from orchestrator.entrypoints.api.agents import app
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.gateway.app import Gateway
from tests.fakes.hub import deaf_hub
from tests.fakes.samples import NOW
from tests.unit.services.conftest import session
from tests.unit.services.world import World

__all__ = ["session"]

Post = Callable[..., tuple[int, Any]]

REPORT: dict[str, Any] = {"seq": 1, "phase": "deploying", "progress": 90, "logs": []}
ERROR = {"code": "app_not_ready", "message": "no answer", "permanent": False}


@pytest.fixture
def post(world: World, session: Session, tmp_path: Path) -> Iterator[Post]:
    """Posts a report of the session's agent."""
    context = Context(
        settings=config.make(state_dir=tmp_path), deps=world.deps, hub=deaf_hub(), started_at=NOW
    )
    headers = {"Authorization": f"Bearer {world.token(session)}"}
    gateway = Gateway(context)
    with TestClient(app.build(context, gateway)) as client:

        def post(body: bytes, session_id: str = session.id) -> tuple[int, Any]:
            response = client.post(
                f"/sessions/{session_id}/progress", content=body, headers=headers
            )
            return response.status_code, response.json()

        yield post
    context.threads.shutdown()


def encoded(**changes: object) -> bytes:
    return json.dumps({**REPORT, **changes}).encode()


@pytest.mark.parametrize(
    ("changes", "failure", "summary", "setback"),
    [
        ({}, None, "", None),
        ({"phase": "failed", "error": ERROR, "summary": "no"}, True, "", None),
        ({"error": ERROR, "change": {"ok": False, **ERROR}}, None, "", None),
        ({"phase": "ready", "error": ERROR, "summary": "Blue."}, None, "Blue.", None),
        ({"phase": "ready", "change": {"ok": True}}, None, "", None),
        ({"phase": "ready", "change": {"ok": False, **ERROR}}, None, "", True),
    ],
    ids=range(6),
)
def test_a_session_remembers_of_a_report_what_goes_with_its_phase(
    world: World,
    session: Session,
    post: Post,
    changes: dict[str, Any],
    failure: bool | None,
    summary: str,
    setback: bool | None,
) -> None:
    expected = Failure(code="app_not_ready", message="no answer", permanent=False)
    assert post(encoded(**changes)) == (200, {"accepted": True})
    assert world.session(session).report == Report(
        seq=1,
        phase=Phase(changes.get("phase", "deploying")),
        progress=90,
        failure=expected if failure else None,
        summary=summary,
        setback=expected if setback else None,
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (encoded(progress=101), "progress"),
        (encoded(error={"code": "Bad!", "message": ""}), "error.code"),
        (encoded(logs=["x" * 4001]), "logs.0"),
        (b"{", "report"),
        (b"[" * 100_000, "report"),
    ],
    ids=range(5),
)
def test_a_report_beyond_its_bounds_is_422_and_names_the_field(
    world: World, session: Session, post: Post, body: bytes, field: str
) -> None:
    status, problem = post(body)
    assert (status, problem["code"], problem["field"]) == (422, "invalid_input", field)
    assert world.session(session).report is None


@pytest.mark.parametrize("session_id", ["x" * 60_000, "ses_short", "sbx_" + "a" * 26])
def test_what_is_no_id_of_a_session_is_404_and_leaves_no_row(
    world: World, post: Post, session_id: str
) -> None:
    status, problem = post(encoded(), session_id)
    assert (status, problem["code"]) == (404, "session_unknown")
    assert world.store.audit.list() == []
