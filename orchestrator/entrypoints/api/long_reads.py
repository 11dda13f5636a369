"""Answers with what may be long: lists of sessions, messages and log lines, sums of usage.

They are read and rendered in a thread, within what their user and their address may take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from orchestrator.domain.people.access import Principal, Role
from orchestrator.entrypoints.api.bearer import bearer_of
from orchestrator.entrypoints.api.bounds import networks
from orchestrator.entrypoints.api.context import context_of

TEXTS_MAX_BYTES = 256 * 1024  # of what users or apps wrote, in one answer


async def answer(
    request: Request, principal: Principal, make: Callable[[], Mapping[str, object]]
) -> Response:
    """The JSON that `make` returns. Raises errors.LimitReached if the caller reads too much, and
    what `make` raises."""
    context = context_of(request)
    readers: list[tuple[str, str]] = []
    if principal.role is not Role.OPERATOR:
        readers.append(("user", principal.user_id))
        if bearer_of(request) is None:  # visitors have no key; who has one is counted by it
            host = request.client.host if request.client is not None else ""
            readers.append(("address", networks.network_of(host)))
    return await context.long_reads.read(context.threads, readers, lambda: JSONResponse(make()))


def latest_within(sizes_bytes: list[int], limit_bytes: int = TEXTS_MAX_BYTES) -> int:
    """How many of the last texts of these sizes fit into an answer; at least one of them."""
    total_bytes = 0
    for count, size_bytes in enumerate(reversed(sizes_bytes)):
        total_bytes += size_bytes
        if total_bytes > limit_bytes:
            return max(1, count)
    return len(sizes_bytes)
