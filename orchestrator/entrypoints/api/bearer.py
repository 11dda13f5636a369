"""Reads the Bearer token of a request. Agents and people send one."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from orchestrator.domain import errors


def bearer_of(request: HTTPConnection) -> str | None:
    """The Bearer token of a request, or None. Raises errors.Unauthorized for another scheme."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise errors.Unauthorized("send the key as `Authorization: Bearer …`")
    return token.strip()
