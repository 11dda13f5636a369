"""Compares answers of the API with its OpenAPI document. Tests let it see each answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx2
import jsonschema_rs

from orchestrator.entrypoints.api.errors.documented import MEDIA_TYPE

Json = Mapping[str, Any]


class Document:
    """An OpenAPI document."""

    def __init__(self, document: Json) -> None:
        self.paths: Json = document["paths"]
        self._components = _closed(document["components"])
        self._validators: dict[str, Any] = {}  # by schema
        self._patterns = {
            path: re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in self.paths
        }

    @property
    def names(self) -> set[str]:
        """The operations: `GET /health`, for example."""
        return {
            f"{method.upper()} {path}" for path, methods in self.paths.items() for method in methods
        }

    def name_of(self, method: str, path: str) -> str | None:
        """The operation that such a request asks for."""
        for documented, operations in self.paths.items():
            if method.lower() in operations and self._patterns[documented].fullmatch(path):
                return f"{method} {documented}"
        return None

    def check(self, answer: httpx2.Response) -> None:
        """Fail unless the operation's documentation has this answer, and each of its members."""
        operation = self._operation(answer.request)
        if operation is None or answer.status_code == 405:
            return
        status, request = str(answer.status_code), answer.request
        name = f"{request.method} {request.url.path}: {status}"
        assert status in operation["responses"], f"{name} isn't documented"
        if request.method == "HEAD":
            return
        answer.read()
        media_type = answer.headers.get("content-type")
        if media_type == MEDIA_TYPE:
            assert answer.json()["code"] in codes_of(operation, status), f"{name}: {answer.text}"
        if media_type in {MEDIA_TYPE, "application/json"}:
            content = operation["responses"][status].get("content", {})
            assert media_type in content, f"{name} has no {media_type}"
            faults = self._validator(content[media_type]["schema"]).iter_errors(answer.json())
            assert not [str(fault) for fault in faults], name

    def _validator(self, schema: Json) -> Any:
        name = repr(schema)
        if name not in self._validators:
            whole = {**schema, "components": self._components}
            self._validators[name] = jsonschema_rs.validator_for(whole, validate_formats=True)
        return self._validators[name]

    def _operation(self, request: httpx2.Request) -> Json | None:
        method = "GET" if request.method == "HEAD" else request.method
        name = self.name_of(method, request.url.path)
        if name is None:
            return None
        operation: Json = self.paths[name.split(" ")[1]][method.lower()]
        return operation


def codes_of(operation: Json, status: str) -> set[str]:
    content = operation["responses"][status].get("content", {})
    if MEDIA_TYPE not in content:
        return set()
    return set(content[MEDIA_TYPE]["schema"]["properties"]["code"]["enum"])


def _closed(components: Json) -> Json:
    """The components, in which what has no place fits nowhere. Clients get schemas that leave it
    open: a later release may have more. Problems have what helps to act."""
    closed = {
        name: {"additionalProperties": False, **schema}
        if "properties" in schema and name != "Problem"
        else schema
        for name, schema in components["schemas"].items()
    }
    return {**components, "schemas": closed}
