"""Bad input is refused with a stable code, the field, and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.installation import Installation


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"prompt": ""}, "prompt_empty", "prompt"),
        ({"prompt": "  \n "}, "prompt_empty", "prompt"),
        ({"prompt": "a" * (16 * 1024 + 1)}, "prompt_too_large", "prompt"),
        ({"prompt": "a\x00b"}, "prompt_not_text", "prompt"),
        ({"prompt": "a\x1b[31mb"}, "prompt_not_text", "prompt"),
        ({"template": "no-such"}, "template_unknown", "template"),
        ({"template": "todo", "ttl": "1s"}, "ttl_out_of_range", "ttl"),
        ({"template": "todo", "ttl": "9000h"}, "ttl_out_of_range", "ttl"),
        ({"template": "todo", "ttl": "soon"}, "ttl_out_of_range", "ttl"),
        ({"prompt": 7}, "invalid_input", "prompt"),
        ({"prompt": "x", "colour": "red"}, "invalid_input", "colour"),
    ],
)
def test_a_bad_request_is_refused_with_a_code_and_its_field(
    spawn: Installation, body: dict[str, Any], code: str, field: str
) -> None:
    response = spawn.call("POST", "/api/sessions", body, key=spawn.operator_key)
    assert response.status == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.json["code"], response.json["field"]) == (code, field)
    assert response.json["detail"]


def test_an_unknown_template_is_answered_with_the_known_ones(spawn: Installation) -> None:
    response = spawn.call("POST", "/api/sessions", {"template": "x"}, key=spawn.operator_key)
    templates = spawn.call("GET", "/api/templates").json["templates"]
    assert response.json["templates"] == [template["name"] for template in templates]
    assert len(templates) >= 8
    assert {template["kind"] for template in templates} == {"static", "python", "node"}


def test_without_a_claude_key_the_answer_names_the_setting_and_the_templates(
    spawn: Installation,
) -> None:
    body = {"prompt": "an app for tide tables with maps"}
    response = spawn.call("POST", "/api/sessions", body, key=spawn.operator_key)
    assert (response.status, response.json["code"]) == (409, "generation_unavailable")
    assert response.json["field"] == "prompt"
    assert response.json["setting"] == "ANTHROPIC_API_KEY"
    assert "kanban" in response.json["templates"]


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[]", b'"x"', b'{"prompt": "\\ud800"}'])
def test_a_body_that_is_no_json_object_is_refused(spawn: Installation, body: bytes) -> None:
    response = spawn.call("POST", "/api/sessions", raw=body, key=spawn.operator_key)
    assert response.status == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_a_body_of_more_than_a_mebibyte_is_refused(spawn: Installation) -> None:
    body = b'{"prompt": "' + b"a" * (1024 * 1024) + b'"}'
    response = spawn.call("POST", "/api/sessions", raw=body, key=spawn.operator_key)
    assert (response.status, response.json["code"]) == (413, "body_too_large")


def test_a_form_post_is_refused(spawn: Installation) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = spawn.call("POST", "/api/sessions", raw=b"template=todo", headers=headers)
    assert response.status == 415


def test_a_wrong_key_is_refused_and_not_treated_as_a_visitor(spawn: Installation) -> None:
    for key in ("spk_wrong", "nonsense"):
        response = spawn.call("POST", "/api/sessions", {"template": "todo"}, key=key)
        assert (response.status, response.json["code"]) == (401, "unauthorized")


def test_operators_endpoints_need_an_operators_key(spawn: Installation) -> None:
    assert spawn.call("GET", "/api/admin/pool").status == 401
    created = spawn.call(
        "POST", "/api/admin/keys", {"name": "a user", "tier": "pro"}, key=spawn.operator_key
    )
    assert created.status == 201
    assert spawn.call("GET", "/api/admin/pool", key=created.json["key"]).status == 403
    path = f"/api/admin/keys/{created.json['key_id']}"
    assert spawn.call("DELETE", path, key=spawn.operator_key).status == 204
    assert spawn.call("GET", "/api/sessions", key=created.json["key"]).status == 401


def test_too_many_sessions_get_429_with_the_limit(spawn: Installation) -> None:
    first = spawn.call("POST", "/api/sessions", {"template": "todo"})
    cookie = {"Cookie": first.headers["set-cookie"].split(";")[0]}
    session_ids = [first.json["session_id"]]
    for _ in range(4):
        more = spawn.call("POST", "/api/sessions", {"template": "todo"}, headers=cookie)
        assert more.status == 202
        session_ids.append(more.json["session_id"])
    refused = spawn.call("POST", "/api/sessions", {"template": "todo"}, headers=cookie)
    assert (refused.status, refused.json["code"]) == (429, "too_many_sessions")
    assert refused.json["limit"] == 5
    assert int(refused.headers["retry-after"]) > 0
    for session_id in session_ids:
        spawn.call("DELETE", f"/api/sessions/{session_id}", headers=cookie)


@pytest.mark.parametrize("path", ["/api/status/nonsense", "/api/nothing", "/nothing"])
def test_unknown_paths_are_404_problems(spawn: Installation, path: str) -> None:
    response = spawn.call("GET", path, key=spawn.operator_key)
    assert response.status == 404
    assert response.headers["content-type"] == "application/problem+json"
