"""The agent app over the world of the services: what it takes of a report, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from orchestrator import config
from orchestrator.contract.health import Condition, Finding
from orchestrator.domain.sessions.session import Failure, Phase, Report, Session
from orchestrator.entrypoints.api.agents import app
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.gateway.app import Gateway
from orchestrator.services.agents import trials
from tests.fakes.hub import deaf_hub
from tests.fakes.samples import NOW
from tests.unit.services.conftest import session
from tests.unit.services.world import World

__all__ = ["session"]

Post = Callable[..., tuple[int, Any]]
Client = tuple[TestClient, dict[str, str]]

REPORT: dict[str, Any] = {"seq": 1, "phase": "deploying", "progress": 90, "logs": []}
ERROR = {"code": "app_not_ready", "message": "no answer", "permanent": False}


@pytest.fixture
def client(world: World, session: Session, tmp_path: Path) -> Iterator[Client]:
    """The agent app, and the headers of the session's agent."""
    context = Context(
        settings=config.make(state_dir=tmp_path), deps=world.deps, hub=deaf_hub(), started_at=NOW
    )
    headers = {"Authorization": f"Bearer {world.token(session)}"}
    gateway = Gateway(context)
    with TestClient(app.build(context, gateway)) as client:
        yield client, headers
    context.threads.shutdown()


@pytest.fixture
def post(client: Client, session: Session) -> Post:
    """Posts a report of the session's agent."""
    test_client, headers = client

    def post(body: bytes, session_id: str = session.id) -> tuple[int, Any]:
        path = f"/sessions/{session_id}/progress"
        response = test_client.post(path, content=body, headers=headers)
        return response.status_code, response.json()

    return post


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


def try_version(client: Client, body: bytes = b'{"secret": "abc"}') -> tuple[int, Any]:
    test_client, headers = client
    response = test_client.post("/agent/trial", content=body, headers=headers)
    return response.status_code, response.json()


def test_a_trial_is_walked_at_the_public_address_of_the_sandbox_that_asks(
    world: World, session: Session, client: Client
) -> None:
    finding = Finding(condition=Condition.UNWELL, problem="GET / answers 404.")
    world.probe.finding = finding

    assert try_version(client) == (200, finding.as_json())
    assert world.probe.probed == [world.sandbox_of(session).slug]
    assert world.probe.trials == ["abc"]


def test_a_trial_without_a_route_is_not_the_apps_fault(world: World) -> None:
    world.add_host()
    session = world.create_session()
    world.converge(session)
    world.start_placed()
    finding = trials.find_trial(world.deps, world.token(session))

    assert isinstance(finding, Finding)
    assert finding.condition is Condition.UNREACHED
    assert world.probe.probed == []


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{}", 422), (b"[", 422), (b'{"secret": "a b"}', 422), (b"x" * 2000, 413)],
)
def test_a_trial_beyond_its_bounds_is_refused(client: Client, body: bytes, status: int) -> None:
    assert try_version(client, body)[0] == status


def test_a_trial_is_for_the_session_that_has_the_sandbox(client: Client) -> None:
    client[1]["Authorization"] = "Bearer x"
    assert try_version(client)[0] == 401
