"""Completes the OpenAPI document: the errors of each operation with their codes, and its links.

What an operation is (its parameters, its body, its callers) says most of the errors that it may
answer with. Routes name the others: `@router.post(..., responses=failing("session_ending"))`.
public_app.py installs `describe`; tests compare every answer of the API with the document.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from orchestrator.domain.logged_requests import WRITES

Json = dict[str, Any]

MEDIA_TYPE = "application/problem+json"

_STATUSES: Mapping[int, tuple[str, ...]] = {
    400: ("bad_request", "cookie_ambiguous"),
    401: ("unauthorized",),
    403: ("forbidden", "origin_refused", "ttl_not_allowed"),
    404: ("host_unknown", "not_found", "session_unknown", "version_unknown"),
    409: (
        "conflict",
        "generation_unavailable",
        "host_exists",
        "host_in_use",
        "host_is_local",
        "host_leaving",
        "idempotency_conflict",
        "key_exists",
        "machine_known",
        "nowhere_to_go",
        "placement_unknown",
        "publish_address_taken",
        "session_ending",
        "version_not_healthy",
        "version_running",
    ),
    413: ("body_too_large",),
    414: ("uri_too_long",),
    415: ("unsupported_media_type",),
    421: ("host_refused",),
    422: (
        "bad_cursor",
        "invalid_input",
        "message_empty",
        "message_not_text",
        "message_too_large",
        "prompt_empty",
        "prompt_not_text",
        "prompt_too_large",
        "template_unknown",
        "ttl_out_of_range",
    ),
    429: (
        "messages_full",
        "storage_quota",
        "too_many_changes",
        "too_many_connections",
        "too_many_downloads",
        "too_many_polls",
        "too_many_reads",
        "too_many_requests",
        "too_many_sessions",
        "too_many_starts",
        "too_many_transfers",
        "too_much_work",
    ),
    431: ("head_too_large",),
    500: ("internal",),
    501: ("transfer_coding_unknown",),
    503: (
        "api_unavailable",
        "database_unavailable",
        "queue_full",
        "stale_write",
        "storage_full",
        "storage_low",
        "storage_unavailable",
    ),
    505: ("http_version_unknown",),
}
_STATUS_OF: Mapping[str, int] = {
    code: status for status, codes in _STATUSES.items() for code in codes
}

_OF_ALL = (  # most of them from the proxy, see docs/errors.md
    "api_unavailable",
    "bad_request",
    "head_too_large",
    "host_refused",
    "http_version_unknown",
    "internal",
    "too_many_connections",
    "too_many_reads",
    "too_many_requests",
    "too_many_transfers",
    "transfer_coding_unknown",
    "uri_too_long",
)
_OF_STORE = ("database_unavailable", "storage_full", "storage_unavailable")
_OF_CHANGES = ("origin_refused", "body_too_large", "unsupported_media_type")
_OF_LONG_READS = ("too_much_work",)
_OF_PATH: Mapping[str, tuple[str, ...]] = {
    "session_id": ("session_unknown",),
    "name": ("host_unknown",),
    "version": ("version_unknown",),
}
_WITHOUT_CALLER = frozenset({"health", "templates"})  # by tag
_OF_OPERATORS = frozenset({"admin", "hosts"})

_MADE_BY: Mapping[str, str] = {  # what the answer names so, others take in their paths
    "/api/sessions": "session_id",
    "/api/admin/hosts": "name",
    "/api/admin/keys": "key_id",
}

_PROBLEM: Json = {
    "type": "object",
    "title": "Problem",
    "description": "An error, as RFC 9457 describes it. Some have more members, which help to act.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "What went wrong, for programs: it stays."},
        "detail": {"type": "string", "description": "What went wrong and what to do, for people."},
        "field": {"type": "string", "description": "The part of the request that is refused."},
    },
}


def failing(*codes: str) -> dict[int | str, Json]:
    """For a route's `responses`: the errors of its own."""
    return {status: {"codes": names} for status, names in _by_status(codes).items()}


def describe(document: Json, templates: Sequence[str]) -> None:
    """Complete an OpenAPI document: each error of each operation, how callers show who they are,
    and the names of the templates that there are."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's, which we don't answer with
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    name, _ = schemas["NewSession"]["properties"]["template"]["anyOf"]
    name["enum"] = list(templates)
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for operations in document["paths"].values():
        for method, operation in operations.items():
            _describe_operation(method.upper(), operation)
    for path, name in _MADE_BY.items():
        _link(document["paths"], path, name)
    _link_versions(document["paths"])
    _link_pages(document["paths"])


def _describe_operation(method: str, operation: Json) -> None:
    responses = operation["responses"]
    codes = [*_codes_of(method, operation)]
    for status in [status for status in responses if status.startswith(("4", "5"))]:
        if "codes" in responses[status]:
            codes += responses.pop(status)["codes"]
        elif status == "422":
            responses.pop(status)
    for number, names in _by_status(codes).items():
        problem = _response(number, names)
        other = responses.get(str(number), {})  # what a route answers besides: /ready
        content = {**other.get("content", {}), **problem["content"]}
        responses[str(number)] = {**problem, **other, "content": content}
    tags = set(operation["tags"])
    if tags & _OF_OPERATORS:
        operation["security"] = [{"key": []}]
    elif not tags & _WITHOUT_CALLER:
        operation["security"] = [{}, {"key": []}]  # without a key: a visitor, by cookie


def _link(paths: Json, path: str, name: str) -> None:
    """Name the operations that take what a POST to `path` has made."""
    takers = [
        operation["operationId"]
        for taking, operations in paths.items()
        if f"{{{name}}}" in taking and "{version}" not in taking
        for operation in operations.values()
    ]
    responses = paths[path]["post"]["responses"]
    (answer,) = (responses[status] for status in responses if status.startswith("2"))
    answer["links"] = {
        taker: {"operationId": taker, "parameters": {name: f"$response.body#/{name}"}}
        for taker in takers
    }


def _link_versions(paths: Json) -> None:
    """A version in the list can be restored, and downloaded."""
    session = "/api/sessions/{session_id}"
    parameters = {
        "session_id": "$request.path.session_id",
        "version": "$response.body#/versions/0/version",
    }
    paths[f"{session}/versions"]["get"]["responses"]["200"]["links"] = {
        taker: {"operationId": taker, "parameters": parameters}
        for taker in (
            paths[f"{session}/versions/{{version}}/restore"]["post"]["operationId"],
            paths[f"{session}/bundle"]["get"]["operationId"],
        )
    }


def _link_pages(paths: Json) -> None:
    """A page of a list leads to the next one."""
    for operation in (operations.get("get", {}) for operations in paths.values()):
        names = {
            parameter["name"]: parameter["in"] for parameter in operation.get("parameters", ())
        }
        if "cursor" in names:
            parameters = {"cursor": "$response.body#/next"}
            if "session_id" in names:
                parameters["session_id"] = "$request.path.session_id"
            link = {"operationId": operation["operationId"], "parameters": parameters}
            operation["responses"]["200"]["links"] = {operation["operationId"]: link}


def _codes_of(method: str, operation: Json) -> Iterator[str]:
    """The codes that follow from what the operation is."""
    tags = set(operation["tags"])
    parameters = operation.get("parameters", ())
    yield from _OF_ALL
    if "health" not in tags:
        yield from _OF_STORE
    if method in WRITES:
        yield from _OF_CHANGES
    if method == "GET" and not tags & _WITHOUT_CALLER:
        yield from _OF_LONG_READS
    if not tags & _WITHOUT_CALLER:
        yield "unauthorized"
        yield "forbidden" if tags & _OF_OPERATORS else "cookie_ambiguous"
    if "requestBody" in operation or parameters:
        yield "invalid_input"
    for parameter in parameters:
        if parameter["in"] == "path":
            yield "not_found"
            yield from _OF_PATH.get(parameter["name"], ())
        elif parameter["name"] == "cursor":
            yield "bad_cursor"


def _by_status(codes: Iterable[str]) -> Mapping[int, list[str]]:
    grouped: dict[int, set[str]] = defaultdict(set)
    for code in codes:
        grouped[_STATUS_OF[code]].add(code)
    return {status: sorted(names) for status, names in sorted(grouped.items())}


def _response(status: int, codes: list[str]) -> Json:
    problem = {"$ref": "#/components/schemas/Problem"}
    schema = {"allOf": [problem], "properties": {"code": {"enum": codes}}}
    response: Json = {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}",
        "content": {MEDIA_TYPE: {"schema": schema}},
    }
    if status in {429, 503}:
        schema_of_s = {"type": "integer", "minimum": 1}
        response["headers"] = {
            "Retry-After": {"description": "Seconds to wait first.", "schema": schema_of_s}
        }
    return response
