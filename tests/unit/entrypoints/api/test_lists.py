"""Long lists: filters, pages and cursors."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import pytest

from orchestrator.domain import ids
from orchestrator.domain.sessions.session import SessionState
from orchestrator.ports import AuditEntry
from tests.fakes.samples import later, session
from tests.unit.entrypoints.api.conftest import Api
from tests.unit.services.world import World

SESSIONS = "/api/admin/sessions"
AUDIT = "/api/admin/audit"


def add(world: World, **changes: Any) -> str:
    return world.store.sessions.add(session(**changes), None, max_active=1000).id


def get(api: Api, path: str, **query: Any) -> Any:
    status, body = api("GET", f"{path}?{urlencode(query, doseq=True)}")
    assert status == 200, body
    return body


def read_pages(api: Api, path: str, rows: str, **query: Any) -> list[Any]:
    body = get(api, path, **query)
    collected = body[rows]
    while body["next"] is not None:
        body = get(api, path, cursor=body["next"], **query)
        collected += body[rows]
    return list(collected)


def test_running_sessions_come_first_however_many_have_ended(world: World, operator: Api) -> None:
    running = add(world, created_at=later(-1000))
    for number in range(3):
        add(world, created_at=later(number), state=SessionState.DESTROYED)
    assert get(operator, SESSIONS, limit=2)["sessions"][0]["session_id"] == running


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_pages_give_each_session_once(world: World, operator: Api, limit: int) -> None:
    created = [
        add(world, created_at=later(number), state=state)
        for number in range(2)
        for state in (SessionState.QUEUED, SessionState.FAILED)
    ]
    rows = read_pages(operator, SESSIONS, "sessions", limit=limit)
    assert sorted(row["session_id"] for row in rows) == sorted(created)
    assert [row["status"] for row in rows] == ["queued", "queued", "failed", "failed"]


def test_sessions_are_filtered_by_states_user_and_the_beginning_of_the_id(
    world: World, operator: Api
) -> None:
    other = ids.new_user_id()
    queued, ready = add(world), add(world, state=SessionState.READY, user_id=other)
    add(world, state=SessionState.DESTROYED)

    def listed(**query: Any) -> set[str]:
        return {row["session_id"] for row in get(operator, SESSIONS, **query)["sessions"]}

    assert listed(state=["queued", "ready"]) == {queued, ready}
    assert listed(user=other) == {ready}
    assert listed(id_prefix=queued[:14]) == {queued}
    assert listed(id_prefix="_") == set()


def test_visitors_page_through_their_own_sessions_alone(world: World, user: Api) -> None:
    add(world)
    status, created = user("POST", "/api/sessions", {"template": "todo"})
    assert status == 202
    rows = read_pages(user, "/api/sessions", "sessions", limit=1)
    assert [row["session_id"] for row in rows] == [created["session_id"]]
    assert get(user, "/api/sessions", state="ready")["sessions"] == []


def test_the_audit_log_is_paged_from_the_newest_on(world: World, operator: Api) -> None:
    for number in range(5):
        world.store.audit.add(
            AuditEntry(at=later(number), actor="daemon", action="host_lost", subject=f"h{number}")
        )
    rows = read_pages(operator, AUDIT, "entries", limit=2)
    assert [row["subject"] for row in rows] == ["h4", "h3", "h2", "h1", "h0"]


@pytest.mark.parametrize("path", [SESSIONS, AUDIT, "/api/sessions"])
@pytest.mark.parametrize("cursor", ["", "x", "bm9uZQ", "WzFd=", "W3RydWUsIm5vdyIsInNlc194Il0", "é"])
def test_a_cursor_that_is_not_ours_is_refused_by_name(
    operator: Api, path: str, cursor: str
) -> None:
    status, problem = operator("GET", f"{path}?cursor={quote(cursor)}")
    assert (status, problem["code"], problem["field"]) == (422, "bad_cursor", "cursor")
