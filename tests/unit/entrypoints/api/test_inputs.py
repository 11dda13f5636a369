"""What requests may contain: every input has a bound, and is refused by name beyond it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from orchestrator.domain.pool.host_fields import LABELS_MAX
from orchestrator.entrypoints.api.guard import BODY_MAX_BYTES
from tests.unit.entrypoints.api.conftest import Api
from tests.unit.entrypoints.api.test_hosts import NEW
from tests.unit.services.world import World

TAIL = "a" * 26
SESSION_ID = f"ses_{TAIL}"
MANY = {f"k{number}": "v" for number in range(5000)}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"labels": MANY}, "labels"),
        ({"labels": dict.fromkeys(MANY, 1)}, "labels"),
        ({"labels": {"\ud800": "\udfff"}}, "labels"),
        ({"labels": {"a\0": ""}}, "labels"),
        ({"labels": {"a": "v" * 64}}, "labels"),
        ({"labels": {"a b": ""}}, "labels"),
        ({"region": "\ud800"}, "region"),
        ({"region": "\0"}, "region"),
        ({"region": "r" * 64}, "region"),
        ({"template": "\ud800"}, "template"),
        ({"template": "t" * 61}, "template"),
        ({"ttl": "\ud800"}, "ttl"),
        ({"ttl": "9" * 4200}, "ttl"),
        ({"ttl": int("9" * 4200)}, "ttl"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "\0"}, "prompt"),
        ({"\ud800": 1}, "\\ud800"),
        ({"u" * 5000: 1}, "u" * 80 + "..."),
        (dict.fromkeys(MANY, 1), "k0"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_field_out_of_its_bounds_is_refused_by_its_name(
    client: TestClient, visitor: Api, changes: dict[str, Any], field: str
) -> None:
    body = json.dumps({"template": "todo", **changes})
    answer = client.post(
        "/api/sessions", content=body, headers={"content-type": "application/json"}
    )
    problem = answer.json()
    assert (answer.status_code, problem["field"]) == (422, field), problem
    assert len(answer.content) < 1000
    assert visitor("GET", "/api/sessions")[1]["sessions"] == []


def test_as_many_labels_as_allowed_are_accepted(world: World, user: Api) -> None:
    labels = dict(list(MANY.items())[:LABELS_MAX])
    world.add_host(labels=labels)
    assert user("POST", "/api/sessions", {"template": "todo", "labels": labels})[0] == 202


@pytest.mark.parametrize(
    "body", [b"[" * 60_000, b'{"a":' * 20_000, b'{"ttl": ' + b"9" * 5000 + b"}"], ids=len
)
def test_a_body_that_nobody_can_parse_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post(
        "/api/sessions", content=body, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["field"]) == (400, "body")


def test_a_body_is_no_larger_than_the_longest_prompt_needs(client: TestClient) -> None:
    longest = '{"prompt": "' + "\\u0061" * 16384 + '"}'
    headers = {"content-type": "application/json"}
    client.post("/api/sessions", content=longest, headers=headers)
    answer = client.post("/api/sessions", content=longest, headers=headers)
    assert answer.status_code == 202
    brackets = b"[" + b"[]," * (BODY_MAX_BYTES // 3) + b"[]]"
    for content in (brackets, iter([brackets])):  # with a length, and in chunks
        answer = client.post("/api/sessions", content=content, headers=headers)
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (413, "body_too_large")
        assert problem["limit_bytes"] == BODY_MAX_BYTES


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("sessions?user=%00", "user"),
        ("sessions?user=usr_x", "user"),
        ("sessions?id_prefix=%25", "id_prefix"),
        ("sessions?id_prefix=a%00", "id_prefix"),
        ("sessions?" + "&state=ready" * 9, "state"),
        ("sessions?limit=" + "9" * 4200, "limit"),
        (f"sessions/{SESSION_ID}/logs?limit=0", "limit"),
        ("usage?days=" + "9" * 400, "days"),
        ("usage?by=%00", "by"),
    ],
)
def test_a_parameter_out_of_its_bounds_is_refused_by_its_name(
    operator: Api, path: str, field: str
) -> None:
    status, problem = operator("GET", f"/api/admin/{path}")
    assert (status, problem["field"]) == (422, field)


@pytest.mark.parametrize(
    ("path", "cursor"),
    [
        ("sessions", f"2.0.{TAIL}"),
        ("sessions", f"0.-1.{TAIL}"),
        ("sessions", f"0.01.{TAIL}"),
        ("sessions", f"0.{'9' * 18}.{TAIL}"),
        ("sessions", f"0.1.{TAIL}%0A"),
        ("sessions", "0.1.ses_%00"),
        ("sessions", "1"),
        ("audit", f"0.0.{TAIL}"),
        ("audit", "0"),
        ("audit", "-1"),
        ("audit", "1.0"),
        ("audit", "9" * 19),
        ("audit", "1%0A"),
        ("audit", "%D9%A1"),  # a digit, in Arabic
    ],
    ids=str,
)
def test_a_cursor_that_names_no_place_is_refused(operator: Api, path: str, cursor: str) -> None:
    status, problem = operator("GET", f"/api/admin/{path}?cursor={cursor}")
    assert (status, problem["code"], problem["field"]) == (422, "bad_cursor", "cursor")


@pytest.mark.parametrize(
    ("path", "cursor"),
    [("sessions", f"0.{'9' * 17}.{TAIL}"), ("sessions", f"1.0.{TAIL}"), ("audit", "9" * 18)],
    ids=str,
)
def test_a_cursor_may_name_a_place_where_nothing_is(operator: Api, path: str, cursor: str) -> None:
    assert operator("GET", f"/api/admin/{path}?cursor={cursor}")[0] == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "hosts/%00"),
        ("POST", "hosts/a%00/cordon"),
        ("DELETE", "hosts/" + "a" * 5000),
        ("DELETE", "keys/%00"),
        ("DELETE", "keys/" + "a" * 5000),
        ("GET", "sessions/%00"),
    ],
)
def test_what_can_be_no_name_or_id_is_not_looked_up(operator: Api, method: str, path: str) -> None:
    status, problem = operator(method, f"/api/admin/{path}")
    assert status == 404
    assert len(problem["detail"]) < 200


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"labels": MANY}, "labels"),
        ({"name": "a" * 5000}, "name"),
        ({"address": "ssh://root@a\0"}, "address"),
        ({"address": "ssh://root@" + "a" * 5000}, "address"),
        ({"host_key": "ssh-rsa " + "A" * 9000}, "host_key"),
        ({"publish_address": "\ud800"}, "publish_address"),
        ({"slots": int("9" * 4200)}, "slots"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_new_host_is_refused_by_the_field_that_is_out_of_its_bounds(
    world: World, client: TestClient, operator: Api, changes: dict[str, Any], field: str
) -> None:
    headers = {**operator.headers, "content-type": "application/json"}
    body = json.dumps({**NEW, **changes})
    answer = client.post("/api/admin/hosts", content=body, headers=headers)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert len(answer.content) < 1000
    assert world.store.hosts.list() == []
