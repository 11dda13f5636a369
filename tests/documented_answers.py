"""Compares answers of the API with its OpenAPI document. Tests let it see each answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx2

from orchestrator.entrypoints.api.errors.documented import MEDIA_TYPE

Json = Mapping[str, Any]


class Document:
    """An OpenAPI document."""

    def __init__(self, document: Json) -> None:
        self.paths: Json = document["paths"]
        self._patterns = {
            path: re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in self.paths
        }

    def check(self, answer: httpx2.Response) -> None:
        """Fail unless the operation's documentation has this answer."""
        operation = self._operation(answer.request)
        if operation is None or answer.status_code == 405:
            return
        status, request = str(answer.status_code), answer.request
        name = f"{request.method} {request.url.path}: {status}"
        assert status in operation["responses"], f"{name} isn't documented"
        if answer.headers.get("content-type") == MEDIA_TYPE and request.method != "HEAD":
            answer.read()
            assert answer.json()["code"] in codes_of(operation, status), f"{name}: {answer.text}"

    def _operation(self, request: httpx2.Request) -> Json | None:
        method = "get" if request.method == "HEAD" else request.method.lower()
        for documented, operations in self.paths.items():
            if method in operations and self._patterns[documented].fullmatch(request.url.path):
                operation: Json = operations[method]
                return operation
        return None


def codes_of(operation: Json, status: str) -> set[str]:
    content = operation["responses"][status].get("content", {})
    if MEDIA_TYPE not in content:
        return set()
    return set(content[MEDIA_TYPE]["schema"]["properties"]["code"]["enum"])
